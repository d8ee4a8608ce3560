import pytest

from synapse.domain.inference import ModelInput


def seeds(first: int) -> list[object]:
    value = ModelInput(prompt="x", parameters={"seed": first}, samples=3)
    return [value.sample(index).parameters["seed"] for index in range(3)]


@pytest.mark.parametrize(
    ("first", "expected"), [(7, [7, 8, 9]), (-2, [-2, 0, 1]), (-3, [-3, -2, 0]), (-1, [-1, -1, -1])]
)
def test_samples_have_seeds_of_their_own_and_none_the_random_one(
    first: int, expected: list[int]
) -> None:
    assert seeds(first) == expected
