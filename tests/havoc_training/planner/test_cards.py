"""The table of GPUs, and the names that users and drivers have for them."""

from __future__ import annotations

import pytest

from havoc_core.errors import ConfigError
from havoc_training.planner.cards import CARDS, card_of_device, find_card

MIB = 2**20


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("rtx4090", "RTX 4090"),
        ("RTX 4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("nvidia geforce rtx 4090 24GB", "RTX 4090"),
        ("a100 80gb", "A100-80"),
        ("A100-80", "A100-80"),
        ("A100-SXM4-40GB", "A100-40"),
        ("a100 pcie 80", "A100 PCIe 80"),
        ("h100", "H100"),
        ("H100 SXM", "H100"),
        ("h100-pcie", "H100 PCIe"),
        ("5060ti", "RTX 5060 Ti 16GB"),
        ("a6000", "RTX A6000"),
        ("v100 32", "V100-32"),
    ],
)
def test_a_card_is_found_however_it_is_written(written, name):
    assert find_card(written).name == name


def test_every_card_is_found_by_its_own_name():
    assert [find_card(card.name) for card in CARDS] == list(CARDS)


def test_a_name_that_is_sold_in_two_sizes_is_answered_with_both():
    with pytest.raises(ConfigError) as caught:
        find_card("A100")
    assert caught.value.where == "--gpu"
    assert caught.value.found == "'A100' is sold as A100-40 and as A100-80."
    assert caught.value.remedy == "Say which: --gpu A100-40 or --gpu A100-80."


def test_an_unknown_card_is_answered_with_the_nearest_names():
    with pytest.raises(ConfigError, match="--gpu: nothing is known of a 'RTX 4070'. Did you mean RTX 40"):
        find_card("RTX 4070")
    with pytest.raises(ConfigError, match=r"Known are RTX 3060 12GB, .*B200\.$"):
        find_card("zzz")


@pytest.mark.parametrize(
    ("reported", "mib", "name"),
    [
        ("NVIDIA GeForce RTX 4090", 24564, "RTX 4090"),
        ("NVIDIA A100-SXM4-80GB", 81920, "A100-80"),
        ("NVIDIA A100-PCIE-40GB", 40960, "A100 PCIe 40"),
        ("NVIDIA A100 80GB PCIe", 81920, "A100 PCIe 80"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100"),
        ("NVIDIA H200", 143771, "H200"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX 6000 Ada"),
        ("Tesla T4", 15360, "T4"),
        ("Tesla V100-SXM2-32GB", 32768, "V100-32"),
        ("NVIDIA GeForce RTX 5060 Ti", 16311, "RTX 5060 Ti 16GB"),
    ],
)
def test_a_device_is_known_by_the_name_that_its_driver_reports(reported, mib, name):
    card = card_of_device(reported, memory_bytes=mib * MIB)
    assert card is not None
    assert card.name == name


@pytest.mark.parametrize(
    ("reported", "mib"),
    [
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16376),
        ("NVIDIA GeForce RTX 4090 D", 24564),
        ("NVIDIA GeForce RTX 5060 Ti", 8188),
        ("NVIDIA H200 MIG 1g.18gb", 18432),
        ("AMD Instinct MI300X", 196608),
    ],
)
def test_a_device_that_is_another_in_spite_of_its_name_is_not_known(reported, mib):
    assert card_of_device(reported, memory_bytes=mib * MIB) is None


def test_what_is_usable_is_a_little_less_than_what_is_sold():
    for card in CARDS:
        assert 0.85 < card.usable_gib / card.memory_gib < 0.99, card.name


def test_peaks_are_those_of_the_datasheets():
    """Dense, with float32 accumulation: the figures that sparsity doubles are not meant."""
    peaks = {
        name: find_card(name).bf16_flops_per_s for name in ("H100", "H200", "A100-80", "RTX 4090", "RTX 3090", "T4")
    }
    assert peaks == {
        "H100": 989.4e12, "H200": 989.4e12, "A100-80": 312e12, "RTX 4090": 165.2e12, "RTX 3090": 71e12, "T4": None,
    }  # fmt: skip
    assert find_card("T4").peak_flops_per_s("float16") == 65e12
    assert find_card("H200").peak_flops_per_s("float32") is None


def test_8_bit_products_begin_with_ada():
    for card in CARDS:
        assert card.has_fp8 == (card.fp8_flops_per_s is not None), card.name
        assert card.has_fp8 == (card.capability >= (8, 9)), card.name
        if card.fp8_flops_per_s and card.bf16_flops_per_s:
            assert card.fp8_flops_per_s / card.bf16_flops_per_s == pytest.approx(2.0, rel=0.02), card.name
