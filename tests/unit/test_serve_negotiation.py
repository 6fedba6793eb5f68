import pytest

from serve.negotiation import choose


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "json"),
        ("", "json"),
        ("*/*", "json"),
        ("application/json", "json"),
        ("application/*", "json"),
        ("audio/midi", "midi"),
        ("audio/x-midi", "midi"),
        ("AUDIO/FLAC", "flac"),
        ("audio/wave", "wav"),
        ("audio/*", "midi"),
        ("text/html, audio/wav;q=0.1", "wav"),
        ("audio/midi;q=0.5, audio/flac", "flac"),
        ("audio/midi;q=0.5, audio/flac;q=0.9, application/json;q=0.8", "flac"),
        ("audio/wav, audio/flac", "wav"),
        ("audio/*;q=0.9, */*;q=0.1", "midi"),
        ("*/*, audio/flac", "flac"),
        ("*/*, application/json;q=0", "midi"),
        ("audio/*, audio/midi;q=0", "flac"),
        ("audio/*;q=0, */*", "json"),
        ("audio/flac;level=1;q=0.3, audio/wav;q=0.2", "flac"),
        ("audio/flac ; Q=1.000", "flac"),
        ("nonsense, audio/flac", "flac"),
        ("audio/midi;q=2, audio/flac;q=0.1", "flac"),
    ],
)
def test_the_best_form(accept: str | None, form: str) -> None:
    chosen = choose(accept)
    assert chosen is not None
    assert chosen.name == form


@pytest.mark.parametrize("accept", ["text/html", "audio/aac", "application/json;q=0", "*/*;q=0", "*/json", "nonsense"])
def test_no_form(accept: str) -> None:
    assert choose(accept) is None
