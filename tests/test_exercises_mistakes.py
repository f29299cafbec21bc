"""What all checks promise, over the tables of right and wrong answers beside this file."""

import pytest
import test_exercises_distillation
import test_exercises_lowrank
import test_exercises_quantization
import test_exercises_search
import test_exercises_tuning
import torch

from rac_helpers import exercises
from rac_helpers.exercises import Hint

TABLES = (
    test_exercises_quantization,
    test_exercises_distillation,
    test_exercises_lowrank,
    test_exercises_search,
    test_exercises_tuning,
)
RIGHT = [(n, a) for table in TABLES for n, answers in table.RIGHT.items() for a in answers]
WRONG = {name: answers for table in TABLES for name, answers in table.WRONG.items()}
PLANTED = [(name, k) for name, answers in WRONG.items() for k in range(len(answers))]
OTHER = [(name, a) for table in TABLES for name in table.WRONG for a in table.OTHER]


def test_every_check_has_right_and_wrong_answers():
    assert {name for name, _ in RIGHT} == set(WRONG)
    assert len(WRONG) == sum(len(table.WRONG) for table in TABLES)


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_right_answers_in_several_styles_are_accepted(name, answer):
    assert getattr(exercises, f"check_{name}")(answer) == exercises.CORRECT


@pytest.mark.parametrize(("name", "k"), PLANTED)
def test_typical_mistake_is_rejected_with_its_hint(name, k):
    wrong, hint = WRONG[name][k]
    state = torch.get_rng_state()
    with pytest.raises(Hint, match=hint):
        getattr(exercises, f"check_{name}")(wrong)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "answer"), OTHER)
def test_wrong_type_gets_a_hint(name, answer):
    """Of the answer itself, and of what it returns."""
    check = getattr(exercises, f"check_{name}")
    with pytest.raises(Hint):
        check(lambda *args: answer)
    with pytest.raises(Hint):
        check(answer)


@pytest.mark.parametrize("name", WRONG)
def test_open_exercise_stays_open(name):
    def todo(*args):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError):
        getattr(exercises, f"check_{name}")(todo)


def test_hints_of_one_exercise_differ():
    """So that no test above passes by words that all hints share."""
    for name, answers in WRONG.items():
        shown = set()
        for wrong, _ in answers:
            with pytest.raises(Hint) as caught:
                getattr(exercises, f"check_{name}")(wrong)
            shown.add(str(caught.value))
        assert len(shown) >= 0.6 * len(answers)
