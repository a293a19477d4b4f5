"""The catalogue has every word in both languages, and all that figures and report ask for by name."""

import string

import pytest

from simlib import architectures, comparison
from simlib.comparison import choice
from simlib.domain import KINDS
from simlib.errors import BadInput
from simlib.figures.catalogue import LANGUAGES, TEXTS, text, title
from simlib.scenario import scenario_names


def _places(words: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}


def test_every_text_is_there_in_both_languages_with_the_same_places_for_values():
    for name, words in TEXTS.items():
        assert tuple(words) == LANGUAGES, name
        assert all(words.values()), name
        assert _places(words["ru"]) == _places(words["en"]), name


def test_russian_texts_are_russian():
    cyrillic = set("абвгдеёжзийклмнопрстуфхцчшщъыьэюя")
    foreign = {name for name, words in TEXTS.items() if not cyrillic & set(words["ru"].lower())}
    assert foreign <= {"against"}


@pytest.mark.parametrize(
    "name",
    [
        *architectures.names(),
        *KINDS,
        *scenario_names(),
        *comparison.CONSISTENCY,
        *(f"where:{name}" for name in scenario_names()),
        *(f"aspect:{aspect}" for aspect in (*comparison.ASPECTS, *choice.COSTS)),
        *(f"metric:{name}" for names in comparison.ASPECTS.values() for name in names),
        *(f"short:{name}" for aspect in comparison.TIMELY for name in comparison.ASPECTS[aspect]),
        *(name for names in comparison.ASPECTS.values() for name in names if "time" not in name and name != comparison.SATURATION),
        *(f"measure:{name}" for names in choice.COSTS.values() for name in names),
        *(f"parameter:{name}" for a in architectures.names() for name in architectures.get(a).parameters.model_fields),
    ],
)
def test_what_there_is_has_its_words(name):
    assert name in TEXTS


def test_a_name_that_the_catalogue_has_not_is_refused_and_a_users_own_architecture_keeps_its_name():
    with pytest.raises(KeyError, match="responce_time"):
        text("responce_time", "ru")
    with pytest.raises(BadInput, match="unknown language 'de'"):
        text("rest", "de")
    assert title("my_own", "ru") == "my_own"
