from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import havoc_data
from havoc_data.prepare.minhash import (
    BUCKET_DOMAIN,
    EMPTY,
    FALLBACK_DOMAIN,
    NUM_HASHES,
    ROUND_DOMAIN,
    SEED,
    signatures,
)
from havoc_data.prepare.shingles import shingle_batch

TWO_TO_64 = 2**64


def mixed(state: int) -> int:
    state = (state + 0x9E3779B97F4A7C15) % TWO_TO_64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % TWO_TO_64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % TWO_TO_64
    return state ^ state >> 31


def unmixed(value: int) -> int:
    """The state for which SplitMix64 gives `value`."""
    value ^= value >> 31 ^ value >> 62
    value = value * pow(0x94D049BB133111EB, -1, TWO_TO_64) % TWO_TO_64
    value ^= value >> 27 ^ value >> 54
    value = value * pow(0xBF58476D1CE4E5B9, -1, TWO_TO_64) % TWO_TO_64
    value ^= value >> 30 ^ value >> 60
    return (value - 0x9E3779B97F4A7C15) % TWO_TO_64


def coefficients() -> tuple[list[int], list[int]]:
    state = [mixed((SEED + i * 0x9E3779B97F4A7C15) % TWO_TO_64) for i in range(4)]

    def turned(word: int, places: int) -> int:
        return (word << places | word >> (64 - places)) % TWO_TO_64

    drawn = []
    for _ in range(2 * NUM_HASHES):
        drawn.append((turned((state[0] + state[3]) % TWO_TO_64, 23) + state[0]) % TWO_TO_64)
        second = state[1]
        state[2] ^= state[0]
        state[3] ^= state[1]
        state[1] ^= state[2]
        state[0] ^= state[3]
        state[2] ^= (second << 17) % TWO_TO_64
        state[3] = turned(state[3], 45)
    return [a | 1 for a in drawn[0::2]], drawn[1::2]


def by_the_letter(hashes: list[int]) -> list[int]:
    """The format of the docstring, in plain integers."""
    a, b = coefficients()
    out = [EMPTY] * NUM_HASHES
    for h in hashes:
        fallback = mixed(h ^ a[0] ^ FALLBACK_DOMAIN)
        for i in range(NUM_HASHES):
            out[i] = min(out[i], (3 << 30) + ((a[i] * fallback + b[i]) % TWO_TO_64 >> 34))
        for r in range(3):
            m = mixed(h ^ b[0] ^ BUCKET_DOMAIN ^ r * ROUND_DOMAIN % TWO_TO_64)
            thrown = m
            while NUM_HASHES * (thrown % 2**32) % 2**32 < 2**32 % NUM_HASHES:
                thrown = mixed(thrown)
            place = NUM_HASHES * (thrown % 2**32) >> 32
            out[place] = min(out[place], (r << 30) + (m >> 34))
    return out


def both(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The signatures, if both implementations agree on them."""
    pytest.importorskip("rensa", reason="rensa is not installed")
    found = signatures(flat, offsets, implementation="numpy")
    assert np.array_equal(found, signatures(flat, offsets, implementation="rensa"))
    return found


def of_one(hashes: list[int]) -> list[int]:
    flat = np.array(hashes, np.uint64)
    return list(signatures(flat, np.array([0, len(flat)]), implementation="numpy")[0].tolist())


def test_the_format_is_frozen() -> None:
    found = signatures(*shingle_batch(["Let f'(x) = 3.14 x^2."]))[0]
    assert found[:6].tolist() == [3446120255, 3404388475, 3305105632, 3237899637, 3244475773, 3003929079]


@pytest.mark.parametrize("size", [1, 2, 5, 33, 130, 400])
def test_the_numbers_are_those_of_the_format(size: int) -> None:
    hashes = [mixed(7 * i) for i in range(size)]
    assert of_one(hashes) == by_the_letter(hashes)


@pytest.mark.parametrize("low", [0, 613_566_757, 2**32 - 1])
def test_a_hash_that_would_make_places_unequal_is_thrown_again(low: int) -> None:
    """Of 2^32 low words 32 are thrown again, too few to be met by chance: 0 is one, and so is 613,566,757."""
    b = coefficients()[1]
    hashes = [unmixed((12345 << 34) + low) ^ b[0] ^ BUCKET_DOMAIN ^ r * ROUND_DOMAIN % TWO_TO_64 for r in range(3)]
    assert of_one(hashes) == by_the_letter(hashes)
    both(np.array(hashes, np.uint64), np.array([0, 3]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 700), max_size=12), st.integers(0, 2**32), st.sampled_from([64, 8]))
def test_rensa_and_numpy_give_the_same_to_the_bit(sizes: list[int], seed: int, bits: int) -> None:
    flat = np.random.default_rng(seed).integers(0, 2**bits, sum(sizes), np.uint64)
    found = both(flat, np.cumsum([0, *sizes]))
    assert found.shape == (len(sizes), 112) and found.dtype == np.uint32


def test_large_documents_and_many_small_ones_give_the_same_with_both() -> None:
    """Documents that span several blocks of numpy's, and more rows than one call of rensa's takes."""
    sizes = [3, 200_000, 0, 150_000, *([40] * 700)]
    flat = np.random.default_rng(5).integers(0, 2**64, sum(sizes), np.uint64)
    found = both(flat, np.cumsum([0, *sizes]))
    assert of_one(flat[3:200_003].tolist()) == found[1].tolist()


def test_a_document_without_shingles_has_a_signature_of_ones() -> None:
    assert (both(np.empty(0, np.uint64), np.array([0, 0, 0])) == 0xFFFFFFFF).all()
    assert signatures(np.empty(0, np.uint64), np.array([0])).shape == (0, 112)


def test_order_and_repetition_of_shingles_alter_nothing() -> None:
    hashes = [mixed(i) for i in range(300)]
    assert of_one(hashes) == of_one(hashes[::-1]) == of_one(hashes + hashes[:50])


def test_the_share_of_equal_numbers_estimates_the_jaccard_similarity_without_bias() -> None:
    """As datasketch's MinHash does, and with no larger error than 112 independent hashes would have."""
    datasketch = pytest.importorskip("datasketch", reason="the reference for MinHash is not installed")
    rng = np.random.default_rng(11)
    for jaccard, common, own in ((0.8, 240, 30), (0.5, 200, 100), (0.2, 60, 120)):
        sets = []
        for _ in range(400):
            fresh = rng.integers(0, 2**64, common + 2 * own, np.uint64)
            sets += [fresh[: common + own], np.concatenate([fresh[:common], fresh[common + own :]])]
        offsets = np.cumsum([0, *map(len, sets)])
        found = signatures(np.concatenate(sets), offsets)
        ours = (found[0::2] == found[1::2]).mean(axis=1)
        spread = (jaccard * (1 - jaccard) / 112) ** 0.5
        assert abs(ours.mean() - jaccard) < 4 * spread / 400**0.5  # four standard errors of 400 pairs
        assert ours.std() < 1.15 * spread  # 400 pairs know a standard deviation to 3.5 %
        reference = []
        for first, second in zip(sets[0:60:2], sets[1:60:2], strict=True):
            sketches = [datasketch.MinHash(112, hashfunc=lambda value: value % 2**32) for _ in range(2)]
            for sketch, values in zip(sketches, (first, second), strict=True):
                sketch.update_batch(values.tolist())
            reference.append(sketches[0].jaccard(sketches[1]))
        assert abs(np.mean(reference) - ours.mean()) < 5 * spread / 30**0.5


def run_with(preparation: str, body: str) -> str:
    """What a fresh process prints that prepares its modules before it imports ours."""
    source = Path(havoc_data.__file__).parent.parent
    code = "import sys, types, logging\n" + preparation + "\n" + body
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


SIGN = """
import numpy as np
from havoc_data.prepare.minhash import signatures
def sign(implementation):
    return signatures(np.arange(5, dtype=np.uint64), np.array([0, 5]), implementation=implementation)
"""
OTHER_RENSA = """
class RMinHash:
    @staticmethod
    def digest_matrix_from_flat_token_hashes(flat, offsets, num_perm, seed):
        return types.SimpleNamespace(to_rows=lambda: [[7] * num_perm] * (len(offsets) - 1))
sys.modules["rensa"] = types.ModuleType("rensa")
sys.modules["rensa"].RMinHash = RMinHash
"""


def test_where_rensa_is_missing_numpy_gives_the_same() -> None:
    said = run_with("sys.modules['rensa'] = None", SIGN + "print(sign('auto')[0].tolist())")
    assert said.strip() == str(of_one([0, 1, 2, 3, 4]))


def test_asking_for_a_rensa_that_is_missing_is_answered_with_what_to_install() -> None:
    body = "\ntry:\n    sign('rensa')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    said = run_with("sys.modules['rensa'] = None", SIGN + body)
    assert said.strip() == (
        "MissingPackageError implementation: 'rensa' needs the package rensa, which is missing. "
        "Install it: pip install 'havoc[formats]'. Or use the implementation numpy, with the same result."
    )


@pytest.mark.parametrize("other", [OTHER_RENSA, "sys.modules['rensa'] = types.ModuleType('rensa')"])
def test_a_rensa_with_another_hash_family_is_not_used_and_that_is_said_once(other: str) -> None:
    said = run_with(other, SIGN + "sign('auto')\nprint(sign('auto')[0].tolist())")
    assert str(of_one([0, 1, 2, 3, 4])) in said
    assert said.count("rensa: the installed version computes another hash family than rensa 0.5.") == 1


def test_asking_for_a_rensa_with_another_hash_family_is_refused() -> None:
    body = "\ntry:\n    sign('rensa')\nexcept Exception as error:\n    print(type(error).__name__, error)"
    said = run_with(OTHER_RENSA, SIGN + body)
    assert (
        "MissingPackageError implementation: the installed rensa computes another hash family than rensa 0.5. " in said
    )
    assert "Or use the implementation numpy" in said


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted where Linux lists them")
def test_rensa_starts_no_threads() -> None:
    """One worker process a core reads text already; rensa would start as many threads in each of them."""
    pytest.importorskip("rensa", reason="rensa is not installed")
    body = """
sign("rensa")
before = len(os.listdir("/proc/self/task"))
signatures(np.arange(20_000, dtype=np.uint64), np.arange(0, 20_001, 10), implementation="rensa")
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert run_with("import os\nos.environ['RAYON_NUM_THREADS'] = '4'", SIGN + body).strip() == "0"
