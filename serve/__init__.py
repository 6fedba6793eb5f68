"""The HTTP service.

::

    app.py          the Ray Serve application: ingress -> composer -> renderer
    settings.py     what one service is started with
    ingress.py      the API: routes, headers, limits of time
    schemas.py      bodies of requests and answers
    negotiation.py  which form of the music a client accepts
    problems.py     every error as application/problem+json (RFC 9457)
    composition.py  what travels between the deployments
    stream.py       notes as they are made, event by event
    composer.py     model replica: engines, requests that step together
    renderer.py     scores to files
    stages.py       the deployments as the ingress calls them
    cli.py          `tutti serve`
"""
