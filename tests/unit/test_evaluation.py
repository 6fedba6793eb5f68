"""An evaluation says what the measures say, of the right pieces, names what was copied, and is the same each time."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from jobs import evaluate as verb
from jobs import models
from tests.music import sequences_dataset, tokens_dataset, walk, works_dataset
from tests.trainings import plan_of, train
from tutti.corpus.score import Notes, Score
from tutti.corpus.score_batch import ScoreBatch
from tutti.dataset import learnt
from tutti.dataset.learnt import Named
from tutti.errors import MissingError, RecipeError, UserError
from tutti.evaluation import comparison, judgement, measures, page, pictures, report, samples, takes
from tutti.evaluation.borrowing import Lender
from tutti.evaluation.comparison import HELD_OUT, SETS, TAKES, TRAIN, Cell
from tutti.evaluation.evaluation import Asked, Evaluation, Judged, compared, gathered
from tutti.evaluation.evaluation import evaluate as evaluated
from tutti.evaluation.writing import writing_of
from tutti.features.vocabulary import TICKS_PER_QUARTER
from tutti.lineage import Dataset
from tutti.metrics import pitch, rhythm, set_distance, structure, voice_leading
from tutti.metrics.diversity import diversity
from tutti.metrics.originality import WorkIndex
from tutti.metrics.rhythm import NOTE_LENGTHS
from tutti.models import bundle as bundles
from tutti.models.bundle import Bundle
from tutti.registry.versions import Registry
from tutti.storage import Folder
from tutti.telemetry import Silent

ASKED = Asked(split="valid", seed=3)
EVIL = "</h2><script>alert(1)</script><img src=x onerror=alert(1)> & \"quoted\" 'too'"


@dataclass(frozen=True)
class Model:
    """A small model that was trained on walks and registered."""

    root: Folder
    registry: Registry
    folder: Path
    bundle: Bundle
    tokens: Dataset
    sequences: Dataset


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    root = Folder(str(tmp_path_factory.mktemp("evaluated")))
    held = works_dataset(root / "works" / "walks" / "a")
    sequences = sequences_dataset(root)
    tokens = root / "tokens"
    data = {"works_address": held.folder.uri, "tokens_address": tokens.uri, "licences": {"CC0-1.0": 40}}
    plan = replace(plan_of(sequences.folder, root / "run", steps=12, validate_every_steps=12), data=data)
    train(plan)
    registry = Registry.embedded(root)
    registry.backend.prepare()
    version = registry.register(plan.run.local_path / "bundle", name="walks")
    folder = registry.fetch(version)
    bundle = bundles.load(folder)
    dataset = learnt.dataset_of(bundle.facts, kind="tokens", root=root)
    return Model(root, registry, folder, bundle, dataset, sequences)


@pytest.fixture(scope="module")
def found(model: Model) -> Evaluation:
    material = gathered(model.bundle, ASKED, root=model.root)
    return evaluated(model.bundle, model.folder, material, model.sequences, ASKED, reporter=Silent())


def value(found: Evaluation, name: str, of: str) -> float:
    (row,) = (row for row in found.rows if row.name == name)
    figure = row.cells[of].value
    assert figure is not None, row
    return figure


# What is compared


def test_takes_are_as_many_and_as_long_as_works_held_out(found: Evaluation) -> None:
    assert len(found.scores[TAKES]) == len(found.scores[HELD_OUT]) == 8
    assert takes.bars_of(found.scores[HELD_OUT]).tolist() == [4] * 8
    assert [request.bars for request in found.requests] == [4] * 8
    assert len({request.seed for request in found.requests}) == 8


def test_works_held_out_are_those_of_the_split_and_training_never_saw_them(model: Model, found: Evaluation) -> None:
    held_out = {named.work_id for named in found.named[HELD_OUT]}
    expected = {ScoreBatch.of([walk(seed)]).work_ids()[0] for seed in range(40) if seed % 10 in (7, 8)}
    assert held_out == expected
    assert found.material.train is not None
    assert not held_out & {named.work_id for named in found.material.train.named}
    assert len(found.material.train) == 28


def test_more_takes_than_works_begin_again_and_fewer_are_held_against_as_many(model: Model) -> None:
    assert [each.bars for each in takes.requests_like([4, 6], takes=5, seed=0, temperature=1.0, top_p=0.95)] == [
        4, 6, 4, 6, 4,
    ]  # fmt: skip
    few = gathered(model.bundle, replace(ASKED, takes=3), root=model.root)
    assert (len(few.held_out), few.held_out_of, few.num_takes) == (3, 8, 3)
    other = gathered(model.bundle, replace(ASKED, takes=3, seed=4), root=model.root)
    assert few.held_out.named != other.held_out.named


def test_works_without_tokens_are_left_out_and_counted(model: Model) -> None:
    held = learnt.dataset_of(model.bundle.facts, kind="works", root=model.root)
    half = Folder(str(model.root.local_path / "half"))
    read = learnt.read(held, tokens_dataset(half, num_works=20), split="valid", licences=())
    assert (len(read), read.left_out) == (4, 4)
    # A model that reads no tokens trained on the licences that it names.
    assert len(learnt.read(held, None, split="valid", licences=["CC0-1.0"])) == 8
    with pytest.raises(UserError, match="holds no work that the model could read"):
        learnt.read(held, None, split="valid", licences=["CC-BY-4.0"])


def test_works_are_written_as_models_of_each_kind_write() -> None:
    batch = ScoreBatch.of([chorale(), walk(0, bars=6)])
    events, could = writing_of("sequences").write(batch)
    assert could.all()
    assert [len(np.unique(score.notes.track)) for score in events] == [1, 1]
    voices, could = writing_of("voices").write(batch)
    assert could.tolist() == [True, False]
    (found,) = voices
    assert found.notes.pitch.tolist() == chorale().notes.pitch.tolist()
    assert len(np.unique(found.notes.track)) == 4
    rolls, could = writing_of("rolls").write(batch)
    assert could.tolist() == [False, True]
    assert takes.bars_of(rolls).tolist() == [4]
    with pytest.raises(RecipeError, match="models that read spectra make no pieces"):
        writing_of("spectra")


def test_what_is_gone_is_one_line(model: Model) -> None:
    facts = {"data": {"works_address": "/nowhere/works/walks/a", "tokens_address": str(model.tokens.folder.uri)}}
    # Results that were moved are found by what comes last in their address.
    assert learnt.dataset_of(facts, kind="works", root=model.root).name == "walks"
    with pytest.raises(MissingError, match="are gone from /nowhere"):
        learnt.dataset_of(facts, kind="works", root=model.root / "elsewhere")
    with pytest.raises(MissingError, match="does not say of which works"):
        learnt.dataset_of({}, kind="works", root=model.root)
    held = learnt.dataset_of(model.bundle.facts, kind="works", root=model.root)
    with pytest.raises(UserError, match=r"the other split of .* holds no work"):
        learnt.read(held, model.tokens, split="other", licences=())


# The figures


@pytest.mark.parametrize("of", SETS)
def test_rows_equal_the_measures_called_directly(found: Evaluation, of: str) -> None:
    batch = found.scores[of]
    direct = {
        "pitch_class_entropy": pitch.pitch_class_entropy(batch),
        "scale_consistency": pitch.scale_consistency(batch),
        "pitch_range": pitch.pitch_range(batch),
        "polyphony_rate": pitch.polyphony_rate(batch, threshold=2),
        "groove_consistency": rhythm.groove_consistency(batch, steps_per_quarter=TICKS_PER_QUARTER),
        "empty_beat_rate": rhythm.empty_beat_rate(batch),
        "repetition_rate": [
            structure.repetition_rate(structure.similarity(score, transposed=False), threshold=measures.REPEATS_FROM)
            for score in batch
        ],
    }
    for name, figures in direct.items():
        assert value(found, name, of) == pytest.approx(float(np.mean(figures))), name
    assert value(found, "mean_distance", of) == diversity(batch, ngram=comparison.NGRAM).mean_distance


def test_features_and_originality_equal_the_measures_called_directly(found: Evaluation) -> None:
    table = set_distance.compare(found.scores[TAKES], found.scores[HELD_OUT]).to_pylist()
    assert [feature.name for feature in found.features] == [row["feature"] for row in table]
    for feature, row in zip(found.features, table, strict=True):
        assert feature.takes == pytest.approx({name: row[name] for name in feature.takes}, nan_ok=True)
    assert found.material.train is not None
    index = WorkIndex.of(found.material.train.batch, work_ids=[named.work_id for named in found.material.train.named])
    for of in (TAKES, HELD_OUT):
        assert list(found.borrowings[of].found) == index.originality(found.scores[of])


def test_foretelling_equals_what_training_measured(model: Model, found: Evaluation) -> None:
    recorded = model.bundle.facts["measures"]
    assert found.judged.model == pytest.approx({
        name: recorded[name] for name in ("valid_nll_nats_per_token", "valid_bits_per_note")
    })  # fmt: skip
    assert found.judged.counts["bigram"]["nll_nats_per_token"] < found.judged.counts["unigram"]["nll_nats_per_token"]


def test_bits_of_count_models_are_their_nats_over_the_same_notes(model: Model) -> None:
    counts = judgement.counted(model.tokens, split="valid", most_semitones=0)
    per_note = {name: each["bits_per_note"] / each["nll_nats_per_token"] for name, each in counts.items()}
    # Of a walk of 4 bars 20 notes are told; as many tokens are predicted of each by either table.
    assert per_note["unigram"] == pytest.approx(per_note["bigram"])
    assert 2 / math.log(2) < per_note["bigram"] < 6 / math.log(2)


def test_a_model_without_a_recipe_is_compared_and_not_judged(model: Model, found: Evaluation) -> None:
    assert judgement.recipe_of({"training": {}}) is None
    recipe = judgement.recipe_of(model.bundle.facts)
    assert recipe is not None
    assert (recipe.strategy, recipe.workers.max) == ("plain", 1)


def test_a_cell_without_a_figure_says_why(found: Evaluation) -> None:
    rows = {row.name: row for row in found.rows}
    assert rows["drum_pattern_consistency"].cells[HELD_OUT] == Cell.none("none of 8 has drums")
    assert "event tokens write all parts of one program as one" in rows["parallel_fifths"].cells[TAKES].why
    assert rows["copies"].cells[TRAIN].why == "these are the known works"
    for row in found.rows:
        assert set(row.cells) == set(SETS)
        for cell in row.cells.values():
            assert (cell.value is None) == bool(cell.why), row
            assert cell.value is None or math.isfinite(cell.value)


def test_means_leave_out_what_is_no_number() -> None:
    cell = Cell.mean(np.array([1.0, np.nan, 3.0]), needs="drums")
    assert (cell.value, cell.pieces) == (2.0, 2)
    assert cell.spread == pytest.approx(math.sqrt(2))
    assert Cell.mean(np.array([np.nan]), needs="drums").why == "none of 1 has drums"
    assert Cell.mean(np.array([4.0]), needs="drums").spread is None


def test_a_piece_without_notes_has_no_measures_and_spoils_none() -> None:
    batch = ScoreBatch.of([walk(0), Score.of(Notes.none(), ticks_per_quarter=24)])
    both, alone = measures.measured(batch), measures.measured(ScoreBatch.of([walk(0)]))
    for name, figures in both.items():
        assert np.isnan(figures[1]), name
        assert figures[:1] == pytest.approx(alone[name], nan_ok=True), name


def chorale() -> Score:
    """Four parts, of which the outer ones move in parallel octaves once."""
    lines = ((72, 74), (67, 65), (64, 62), (48, 50))
    return Score.of(
        Notes.of(
            onset_ticks=[24 * beat for _ in lines for beat in range(2)],
            duration_ticks=24,
            pitch=[note for line in lines for note in line],
            track=[part for part in range(4) for _ in range(2)],
        ).in_order(),
        ticks_per_quarter=24,
    )


def test_faults_of_voice_leading_are_over_all_changes_of_pieces_with_four_parts() -> None:
    batch = ScoreBatch.of([chorale(), walk(0), chorale()])
    rows = {row.name: row for row in comparison.rows_of_voice_leading({HELD_OUT: batch}, why_not={})}
    cell = rows["parallel_octaves"].cells[HELD_OUT]
    assert (cell.value, cell.pieces) == (100.0, 2)
    few = comparison.rows_of_voice_leading({HELD_OUT: ScoreBatch.of([chorale(), walk(0), walk(1)])}, why_not={})
    assert few[0].cells[HELD_OUT].why == "only 1 of 3 has four parts"
    direct = voice_leading.examine(voice_leading.voices_of(chorale(), steps_per_quarter=4)).rates()
    assert cell.value == direct["parallel octaves"]


# Copies


def song(seed: int) -> Score:
    """A melody that tells enough to be known again: 64 notes of many intervals and lengths."""
    random = np.random.default_rng(seed)
    duration = random.choice([6, 12, 24, 36], size=64)
    onset = np.concatenate(([0], np.cumsum(duration)[:-1]))
    return Score.of(
        Notes.of(onset_ticks=onset, duration_ticks=duration, pitch=random.integers(55, 80, size=64)),
        ticks_per_quarter=24,
    )


def transposed(score: Score, semitones: int) -> Score:
    return replace(score, notes=replace(score.notes, pitch=(score.notes.pitch + semitones).astype(np.uint8)))


def test_a_copy_among_the_takes_is_named(found: Evaluation) -> None:
    songs = [song(seed) for seed in range(6)]
    named = tuple(
        Named(work_id, f"Song {number}", EVIL, "CC-BY-4.0", "songs")
        for number, work_id in enumerate(ScoreBatch.of(songs).work_ids())
    )
    known = learnt.Works(ScoreBatch.of(songs), named, left_out=0)
    planted = takes.Takes(
        ScoreBatch.of([song(100), transposed(songs[4], 3), song(101)]), found.requests[:3], refused_tokens=0
    )
    material = replace(found.material, train=known, num_takes=3)
    again = compared(found.bundle, planted, found.judged, material, ASKED, reporter=Silent())
    assert again.borrowings[TAKES].copies.tolist() == [False, True, False]
    assert value(again, "copies", TAKES) == pytest.approx(1 / 3)
    document = report.plain(again, model="songs/1", digest="d")
    told = document["takes"][1]["originality"]
    assert told["copy"]
    assert told["melody"]["work"]["title"] == "Song 4"
    assert told["melody"]["work"]["licence"] == "CC-BY-4.0"
    assert told["melody"]["semitones"] == 3
    text = page.render(again, samples.rendered(again, pairs=0), model="songs/1").decode()
    (row,) = re.findall(r'<tr class="copy">.*?</tr>', text)
    assert "Take 2" in row
    assert "Song 4" in row
    assert "CC-BY-4.0" in row
    assert "3 semitones higher" in row
    assert "<script>alert" not in text


def test_a_family_without_likelihood_shows_what_its_judge_found(found: Evaluation) -> None:
    figures = {"valid_roll_deviation": 0.25, "valid_notes": 12.0, "valid_notes_of_data": 24.0, "valid_rate": math.nan,
               "valid_real_rate": 0.5}  # fmt: skip
    again = replace(found, judged=Judged(figures, {}))
    text = page.render(again, samples.rendered(again, pairs=0), model="walks/1").decode()
    row = r'<th scope="row">([\w ]+)</th><td class="n">([^<]+)</td><td class="n">([^<]+)</td></tr>'
    assert re.findall(row, text)[:3] == [
        ("Roll deviation", "0.250", "–"), ("Notes", "12.0", "24.0"), ("Rate", "–", "0.500"),
    ]  # fmt: skip
    assert "Negative log-likelihood" not in text


def test_a_training_of_too_many_notes_for_an_index_is_told(found: Evaluation) -> None:
    material = replace(found.material, train=None)
    made = takes.Takes(found.scores[TAKES], found.requests, refused_tokens=0)
    again = compared(found.bundle, made, found.judged, material, ASKED, reporter=Silent())
    rows = {row.name: row for row in again.rows}
    assert "more notes than an index" in rows["copies"].cells[TAKES].why
    assert "more notes than an index" in rows["pitch_range"].cells[TRAIN].why
    assert all(feature.train is None for feature in again.features)
    text = page.render(again, samples.rendered(again, pairs=0), model="walks/1").decode()
    assert "Not looked at: the training holds more notes" in text
    report.to_json(report.plain(again, model="walks/1", digest="d"))


# Files


@pytest.fixture(scope="module")
def rendered(found: Evaluation) -> samples.Samples:
    return samples.rendered(found, pairs=2)


def test_every_take_is_a_file_and_some_are_heard(found: Evaluation, rendered: samples.Samples) -> None:
    names = sorted(rendered.files)
    assert [name for name in names if "take" in name and name.endswith(".mid")] == [
        f"samples/take-{number:03d}.mid" for number in range(1, 9)
    ]
    assert [name for name in names if name.endswith(".flac")] == [
        "samples/held-out-001.flac", "samples/held-out-002.flac", "samples/take-001.flac", "samples/take-002.flac",
    ]  # fmt: skip
    assert len(rendered.pairs) == 2


def test_a_take_without_notes_is_a_silent_card(found: Evaluation) -> None:
    empty = ScoreBatch.of([Score.of(Notes.none(), ticks_per_quarter=24)] * 8)
    made = takes.Takes(empty, found.requests, refused_tokens=5)
    again = compared(found.bundle, made, found.judged, found.material, ASKED, reporter=Silent())
    text = page.render(again, samples.rendered(again, pairs=1), model="walks/1").decode()
    assert "no notes" in text
    assert "Tokens of the takes that could not be played: 5" in text
    report.to_json(report.plain(again, model="walks/1", digest="d"))


def test_the_same_evaluation_gives_the_same_bytes_and_no_place_of_this_machine(model: Model, found: Evaluation) -> None:
    document = report.plain(found, model="walks/1", digest="d")
    data = report.to_json(document)
    assert json.loads(data) == document
    assert str(model.root.local_path).encode() not in data
    again = evaluated(model.bundle, model.folder, found.material, model.sequences, ASKED, reporter=Silent())
    assert report.to_json(report.plain(again, model="walks/1", digest="d")) == data
    other = replace(ASKED, seed=9)
    different = evaluated(model.bundle, model.folder, found.material, model.sequences, other, reporter=Silent())
    assert report.plain(different, model="walks/1", digest="d")["takes"] != document["takes"]


def test_the_table_holds_every_figure(found: Evaluation) -> None:
    document = report.plain(found, model="walks/1", digest="d")
    lines = report.to_csv(document).decode().splitlines()
    assert lines[0] == ",".join(report.CSV_HEAD)
    written = {tuple(line.split(",")[:4]): line.split(",")[4] for line in lines[1:]}
    for row in found.rows:
        for of, cell in row.cells.items():
            shown = "" if cell.value is None else repr(cell.value)
            assert written[row.section, row.name, row.unit, of] == shown


def test_figures_of_a_tracker_are_numbers_alone(found: Evaluation) -> None:
    figures = report.figures(report.plain(found, model="walks/1", digest="d"))
    assert figures["valid_nll_nats_per_token"] == found.judged.model["valid_nll_nats_per_token"]
    assert figures["pitch_range.held_out"] == value(found, "pitch_range", HELD_OUT)
    assert "pitch_count.overlap" in figures
    assert all(math.isfinite(figure) for figure in figures.values())


class Loads(HTMLParser):
    """Everything that a page could fetch, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.sounds = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, text in attrs:
            if name in ("src", "href", "srcset", "poster", "action", "xlink:href"):
                if (text or "").startswith("data:audio/mpeg;base64,"):
                    self.sounds += 1
                else:
                    self.loads.append(f"{tag} {name}={text}")


def test_the_page_holds_everything_and_loads_nothing(found: Evaluation, rendered: samples.Samples) -> None:
    text = page.render(found, rendered, model="walks/1").decode()
    parsed = Loads()
    parsed.feed(text)
    assert parsed.loads == []
    assert parsed.sounds == 4
    without_data = re.sub(r"data:[\w/;,+=]+", "", text)
    assert re.findall(r"(?:https?:)?//[\w.]+|url\(|@import|<link|<iframe", without_data) == []
    assert "default-src 'none'" in text
    for row in found.rows:
        assert row.title in text
    assert text.count('role="img"') > 30


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(chromium() is None, reason="needs Chromium (Debian: package chromium)")
def test_the_page_opens_in_a_browser_without_a_complaint(
    found: Evaluation, rendered: samples.Samples, tmp_path: Path
) -> None:
    (tmp_path / "page.html").write_bytes(page.render(found, rendered, model="walks/1"))
    program = chromium()
    assert program is not None
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000", f"file://{tmp_path}/page.html"],
        capture_output=True, text=True, timeout=120, check=True, env=os.environ | {"HOME": str(tmp_path)},
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    assert done.stdout.count("<audio") == 4
    assert "Measure by measure" in done.stdout


# Pictures


def test_note_lengths_have_short_names_for_each() -> None:
    assert len(page._SHORT_LENGTHS) == len(NOTE_LENGTHS)


def bars_drawn(picture: str, of: str) -> float:
    """Shares that a picture tells of one set, added up, per cent."""
    return sum(float(share) for share in re.findall(rf": ([\d.]+) % of {of}</title>", picture))


def test_histograms_show_every_piece_once() -> None:
    figures = {TAKES: np.array([1.0, 2.0, 2.5, np.nan]), HELD_OUT: np.array([2.0, 8.0, 9.0])}
    picture = pictures.histograms(figures, title="pitch count")
    assert bars_drawn(picture, "takes") == pytest.approx(100, abs=0.2)
    assert bars_drawn(picture, "works held out") == pytest.approx(100, abs=0.2)
    same = pictures.histograms({TAKES: np.array([2.0, 2.0]), HELD_OUT: np.array([2.0])}, title="x")
    assert bars_drawn(same, "takes") == 100
    assert "no piece has it" in pictures.histograms({TAKES: np.array([np.nan]), HELD_OUT: np.array([])}, title="x")


def test_matrices_are_drawn_cell_by_cell() -> None:
    alike_BB = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.5], [1.0, 0.5, 1.0]])
    picture = pictures.similarity(alike_BB, of=TAKES, title="x")
    (full,) = re.findall(r'stroke-opacity="1" d="([^"]*)"', picture)
    assert full == "M0 0.5h1M2 0.5h1M1 1.5h1M0 2.5h1M2 2.5h1"
    (half,) = re.findall(r'stroke-opacity="0.5" d="([^"]*)"', picture)
    assert half == "M2 1.5h1M1 2.5h1"
    large = pictures.similarity(np.eye(500), of=TAKES, title="x")
    assert len(large) < 20_000


@pytest.mark.parametrize(
    ("figure", "unit", "spread", "text"),
    [
        (3.0, "bits", 0.117, "3.00"), (0.9221, "", 0.0352, "0.922"), (1234.5, "notes", 100.0, "1,234"),
        (0.125, "share", 0.1, "12.5 %"), (2.784, "", None, "2.78"), (0.0499, "", None, "0.0499"), (0.0, "", None, "0"),
        (12.0, "", 0.0, "12.00"),
    ],
)  # fmt: skip
def test_figures_are_written_as_exactly_as_they_are_known(
    figure: float, unit: str, spread: float | None, text: str
) -> None:
    assert report.written(figure, unit=unit, spread=spread) == text


# The verb


def typed(*words: str) -> list[str]:
    done = CliRunner().invoke(verb.command, list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output.splitlines()


def files_below(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_verb_makes_files_keeps_figures_and_finds_them_again(model: Model, tmp_path: Path) -> None:
    root = str(model.root.local_path)
    words = ("walks", "--split", "valid", "--takes", "2", "--samples", "1", "--root", root)
    planned = typed(*words, "--dry-run")
    assert planned[0].startswith("model      walks/1")
    assert planned[1] == "held out   2 of 8 works of valid"
    assert planned[-1].endswith("not made yet")
    said = typed(*words, "--out", str(tmp_path / "out"))
    assert any(line.startswith("valid nll nats per token: ") for line in said)
    assert any(line.startswith("Pitch-class entropy [bits]") for line in said)
    assert said[-1] == f"page: {tmp_path}/out/evaluation.html"
    assert list(files_below(tmp_path / "out")) == [
        "evaluation.csv", "evaluation.html", "evaluation.json", "samples/held-out-001.flac",
        "samples/held-out-001.mid", "samples/take-001.flac", "samples/take-001.mid", "samples/take-002.mid",
    ]  # fmt: skip
    assert typed(*words, "--dry-run")[-1].endswith("finished")
    assert any("found finished" in line or line == said[-2] for line in typed(*words))

    version = model.registry.resolve("walks/1")
    figures = version.evaluations["valid"]
    assert figures["valid_nll_nats_per_token"] == pytest.approx(
        model.bundle.facts["measures"]["valid_nll_nats_per_token"]
    )
    card = model.registry.card(version)
    assert "## Evaluation on valid" in card
    assert "pitch_class_entropy.takes" in card
    run = model.registry.backend.client().get_run(version.run_id)
    assert run.data.metrics["evaluation.valid.copies.takes"] == 0
    kept = {file.path for file in model.registry.backend.client().list_artifacts(version.run_id, "evaluation/valid")}
    assert kept == {f"evaluation/valid/evaluation.{suffix}" for suffix in ("csv", "html", "json")}
    shown = CliRunner().invoke(models.command, ["show", "walks/1", "--root", root])
    assert "## Evaluation on valid" in shown.output


def test_an_unknown_model_is_one_line(model: Model) -> None:
    done = CliRunner().invoke(verb.command, ["walsk", "--root", str(model.root.local_path)])
    assert isinstance(done.exception, MissingError)
    assert "did you mean 'walks'?" in str(done.exception)


def test_a_lender_knows_nothing_of_an_empty_shelf() -> None:
    none = Lender(learnt.Works(ScoreBatch.of([]), (), left_out=0)).asked(ScoreBatch.of([song(0)]))
    assert none.copies.tolist() == [False]
    assert none.longest(0) is None
    assert list(none.plain()) == [{"copy": False, "melody": None, "texture": None, "shared": None}]
