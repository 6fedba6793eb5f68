"""Networks that step: what a row hears is what it would hear alone, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.test_readers import bar_vae, decoder
from tutti.models.decoder.processor import ProcessorSteps
from tutti.models.decoder.steps import DecoderSteps, reached_by, settled
from tutti.models.matrices import Matrix
from tutti.models.precision import Precision
from tutti.models.reader import Reader, Steps
from tutti.models.recurrent import Recurrent, RecurrentConfiguration

CAPACITY = 200


def recurrent() -> Recurrent:
    return Recurrent(RecurrentConfiguration(vocabulary_size=50, layers=2, width=32, hidden=24)).eval()


MODELS = {
    "decoder": decoder,
    "grouped heads": lambda: decoder(key_value_heads=2),
    "window": lambda: decoder(window_tokens=4, key_value_heads=2),
    "relative": lambda: decoder(relative="pitch_and_time"),
    "relative window": lambda: decoder(relative="pitch_and_time", window_tokens=6, key_value_heads=2),
    "recurrent": recurrent,
    "bar_vae": bar_vae,
}


@pytest.fixture(params=list(MODELS))
def model(request: pytest.FixtureRequest) -> Reader:
    torch.manual_seed(0)
    made: Reader = MODELS[request.param]()
    return made


def joined(steps: Steps, model: Reader, prompts: list[torch.Tensor], *, room_rows: int = 8) -> Any:
    memory = steps.new_memory(room_rows=room_rows, capacity_tokens=CAPACITY)
    for number, prompt in enumerate(prompts):
        seeds = np.array([number], dtype=np.uint64)
        fresh = model.new_cache(rows=1, capacity_tokens=len(prompt), seeds=seeds)
        model.read(prompt[None], fresh)
        memory.join(fresh)
    return memory


def drawn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def test_steps_say_what_reading_says(model: Reader) -> None:
    prompts = [drawn(length, seed=length) for length in (3, 9, 5)]
    following = drawn(4, 3)
    steps = model.steps()
    memory = joined(steps, model, prompts)
    with torch.inference_mode():
        said = [steps(tokens, memory) for tokens in following]
        for row, prompt in enumerate(prompts):
            alone = model.new_cache(rows=1, capacity_tokens=CAPACITY, seeds=np.array([row], dtype=np.uint64))
            whole = model.read(torch.cat((prompt, following[:, row]))[None], alone)[0]
            for number, logits in enumerate(said):
                torch.testing.assert_close(logits[row], whole[len(prompt) + number], rtol=1e-4, atol=1e-5)
    assert memory.lengths_B.tolist() == [7, 13, 9]


def test_rows_that_leave_and_join_change_nothing_for_the_others(model: Reader) -> None:
    prompts = [drawn(length, seed=length) for length in (3, 9, 5, 12)]
    steps = model.steps()
    memory = joined(steps, model, prompts)
    with torch.inference_mode():
        steps(drawn(4), memory)
        memory.keep(torch.tensor([0, 3, 2]))
        fresh = model.new_cache(rows=1, capacity_tokens=4, seeds=np.array([7], dtype=np.uint64))
        model.read(drawn(1, 4, seed=7), fresh)
        memory.join(fresh)
        said = steps(drawn(4, seed=3), memory)
        for place, row in enumerate((0, 3, 2)):
            alone = model.new_cache(rows=1, capacity_tokens=CAPACITY, seeds=np.array([row], dtype=np.uint64))
            model.read(torch.cat((prompts[row], drawn(4)[row : row + 1]))[None], alone)
            heard = model.read(drawn(4, seed=3)[None, place : place + 1], alone)[0, -1]
            torch.testing.assert_close(said[place], heard, rtol=1e-4, atol=1e-5)


needs_bfloat16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN multiplies no bfloat16 on this processor"
)
HALVES = ["decoder", "grouped heads", "window", "recurrent"]
ALONE: list[Any] = [(name, "float32") for name in MODELS if name != "bar_vae"]
ALONE += [(name, "bfloat16") for name in HALVES if name != "recurrent"]
ALONE += [pytest.param("recurrent", "bfloat16", marks=needs_bfloat16)]


@pytest.mark.parametrize(("name", "precision"), ALONE)
def test_what_a_row_hears_does_not_depend_on_its_company_to_the_bit(name: str, precision: Precision) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    steps, random = model.steps(precision), np.random.default_rng(0)
    mine, following = drawn(58, seed=4), drawn(9, seed=5).tolist()
    heard = []
    with torch.inference_mode():
        for company in (0, 1, 2, 4, 6, 16, 33):
            place = int(random.integers(company + 1))
            prompts = [drawn(int(random.integers(1, 190)), seed=100 + other) for other in range(company)]
            prompts.insert(place, mine)
            memory = joined(steps, model, prompts, room_rows=company + 1)
            said = []
            for token in following:
                tokens = drawn(company + 1, seed=int(random.integers(1000)))
                tokens[place] = token
                said.append(steps(tokens, memory)[place])
            heard.append(torch.stack(said))
    for other in heard[1:]:
        assert torch.equal(heard[0], other)


@pytest.mark.parametrize(("inputs", "outputs"), [(64, 192), (256, 768), (704, 256), (256, 929)])
def test_a_product_gives_a_row_the_same_beside_any_number_of_others(inputs: int, outputs: int) -> None:
    weight, x = torch.randn(outputs, inputs), torch.randn(128, inputs)
    matrix = Matrix(weight)
    whole = matrix(x)
    torch.testing.assert_close(whole, x @ weight.T, rtol=1e-4, atol=1e-4)
    for rows in (1, 2, 3, 5, 7, 8, 11, 31, 64, 100):
        assert torch.equal(matrix(x[:rows]), whole[:rows])
        assert torch.equal(matrix(x[-rows:]), whole[-rows:])


def test_products_with_something_after_them() -> None:
    matrix, x, other = Matrix(torch.randn(6, 8), torch.randn(6)), torch.randn(3, 8), torch.randn(3, 6)
    plain = matrix(x)
    torch.testing.assert_close(matrix.swish(x), torch.nn.functional.silu(plain))
    torch.testing.assert_close(matrix.added(x, other), plain + other)
    torch.testing.assert_close(matrix.times(x, other), plain * other)


def test_rows_of_many_blocks_come_first_where_much_is_won() -> None:
    assert reached_by(np.array([3, 1, 2, 1])) == [4, 3, 1]
    assert settled(np.array([4, 4, 3, 3, 2, 1, 1])) is None
    mixed = np.array([1, 2, 1, 4, 1, 2, 4, 1, 2, 4, 1])
    order = settled(mixed)
    assert order is not None
    assert mixed[order].tolist() == sorted(mixed.tolist(), reverse=True)
    assert sorted(order.tolist()) == list(range(len(mixed)))
    assert order[10] == 10, "who lies well stays"


@needs_bfloat16
@pytest.mark.parametrize("name", HALVES)
def test_in_sixteen_bits_steps_say_nearly_the_same(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()

    def said(precision: Precision) -> torch.Tensor:
        steps = model.steps(precision)
        memory = joined(steps, model, [drawn(70), drawn(5)])
        with torch.inference_mode():
            return torch.stack([steps(tokens, memory) for tokens in drawn(40, 2)])

    exact = said("float32")
    assert 0 < (said("bfloat16") - exact).std() / exact.std() < 0.02


def test_rows_hear_the_same_however_many_threads_share_them() -> None:
    torch.manual_seed(0)
    model, threads = decoder(), torch.get_num_threads()
    said = []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(1)
            steps = model.steps()
            memory = joined(steps, model, [drawn(length) for length in range(1, 49)], room_rows=48)
            torch.set_num_threads(number)
            with torch.inference_mode():
                said.append(steps(drawn(48), memory))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(said[0], said[1])
    assert torch.equal(said[0], said[2])


def test_on_a_processor_steps_are_compiled_where_attention_goes_by_places() -> None:
    assert isinstance(decoder(window_tokens=4, key_value_heads=2).steps(), ProcessorSteps)
    assert isinstance(decoder(relative="pitch_and_time").steps(), DecoderSteps)


def test_rows_keep_their_slots_and_who_joins_takes_one_that_is_free() -> None:
    model = decoder()
    steps = model.steps()
    prompts = [drawn(length, seed=length) for length in (70, 3, 130)]
    memory = joined(steps, model, prompts, room_rows=3)
    assert memory.size_bytes == 3 * 4 * 3 * 7 * 32 * (8 + 16) * 4, "channels of values are rounded up to a line"
    kept = memory.slots_B[[2, 0]].tolist()
    memory.keep(torch.tensor([2, 0]))
    assert (memory.lengths_B.tolist(), memory.slots_B.tolist()) == ([130, 70], kept)
    fresh = model.new_cache(rows=1, capacity_tokens=3)
    model.read(prompts[1][None], fresh)
    memory.join(fresh)
    assert memory.lengths_B.tolist() == [130, 70, 3]
    assert sorted(memory.slots_B.tolist()) == [0, 1, 2]


def test_memory_of_blocks_is_allocated_once_and_moves_whole_rows() -> None:
    model = decoder(relative="pitch_and_time")
    steps = model.steps()
    prompts = [drawn(length, seed=length) for length in (70, 3, 130)]
    memory = joined(steps, model, prompts, room_rows=3)
    held, bytes_of_a_row = memory.keys_NLRGPD.data_ptr(), 2 * 4 * 3 * 4 * 64 * 8 * 4
    assert memory.size_bytes == 3 * bytes_of_a_row
    memory.keep(torch.tensor([2, 0]))
    again = joined(steps, model, [prompts[2], prompts[0]], room_rows=3)
    assert memory.lengths_B.tolist() == [130, 70]
    for block in range(3):
        reach = 2 if block < 2 else 1
        torch.testing.assert_close(memory.keys_NLRGPD[block, :, :reach], again.keys_NLRGPD[block, :, :reach])
        torch.testing.assert_close(memory.values_NLRGPD[block, :, :reach], again.values_NLRGPD[block, :, :reach])
    fresh = model.new_cache(rows=1, capacity_tokens=3)
    model.read(prompts[1][None], fresh)
    memory.join(fresh)
    assert memory.keys_NLRGPD.data_ptr() == held
    assert memory.lengths_B.tolist() == [130, 70, 3]
