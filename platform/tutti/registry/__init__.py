"""What was trained: runs, versions, cards. The only room that knows MLflow.

::

    backend.py         where MLflow keeps its records: a SQLite file below the results, or a server
    run_record.py      one MLflow run: found again by its key, one value a step
    runs.py            the tracker of a training: a queue that never holds the training up
    pictures.py        the loss picture
    model_version.py   one registered model, and how people refer to it
    versions.py        the models of a backend: register, resolve, fetch, promote, roll back
    files.py           a version's files: staged, read back, kept in a cache
    mlmodel.py         the files that make a bundle an MLflow model, which MLflow loads by itself
    card.py            what a person should know before using a model
    gate.py            what a version must show to be promoted
"""

import os

# MLflow reports its use to its makers unless told not to, and decides so at its import, which is below this line.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
