"""Tables print every registered method by its title; the evidence must not import torch to know it."""

from lco.evidence.report import titles
from lco.methods import METHODS


def test_titles_are_the_registrys():
    printed = titles()
    assert {name: printed[name] for name in METHODS if name in printed} == {
        name: method.title for name, method in METHODS.items() if name in printed
    }
    # What trains no policy of its own stands in no table.
    assert set(METHODS) - set(printed) <= {"preference_verifier"}
