"""An accuracy is held against guessing by an exact binomial test."""

import numpy as np
import pytest
from scipy import stats

from codesign.data.chance import LUCK, compare, compare_accuracy


@pytest.mark.parametrize(("right", "expected"), [(12, True), (20, True), (21, False), (100, False)])
def test_balanced_classes_are_held_against_one_over_their_number(right, expected):
    labels = np.arange(100) % 10
    decisions = np.where(np.arange(100) < right, labels, (labels + 1) % 10)
    found = compare(labels, decisions, 10)
    assert (found.samples, found.right, found.guess, found.commonest) == (100, right, 0.1, -1)
    assert found.within_noise is expected
    assert found.within_noise is bool(stats.binomtest(right, 100, 0.1, "greater").pvalue > LUCK)


def test_unbalanced_classes_are_held_against_the_commonest_of_these_samples():
    labels = np.repeat([0, 1], [890, 110])
    always = compare(labels, np.zeros(1000, int), 2)
    assert always.within_noise and always.answered == 0 and always.balanced == 0.5
    assert "no better than always answering class 0 (89.0% of 1000 samples, always" in always.sentence("accuracy")
    assert "it answers class 0 for every sample" in always.sentence("accuracy")
    named = compare(labels, np.zeros(1000, int), 2, ["a\nhealthy\x1b[31m beat of some patient", "ill"]).sentence(
        "accuracy"
    )
    assert "always answering class a healthy [31m beat of\N{HORIZONTAL ELLIPSIS} (89.0%" in named
    assert "it answers class a healthy [31m beat" in named
    assert compare_accuracy(labels, 0.90, 2).within_noise
    assert not compare_accuracy(labels, 0.93, 2).within_noise


def test_a_useful_answer_below_the_commonest_class_is_told_with_its_balanced_accuracy():
    labels = np.repeat([0, 1], [900, 100])
    decisions = labels.copy()
    decisions[:150] = 1
    found = compare(labels, decisions, 2)
    assert found.within_noise
    assert "balanced over the classes it is 91.7%" in found.sentence("accuracy")


def test_balanced_accuracy_weighs_the_classes_that_occur_equally():
    labels = np.repeat([0, 2], [90, 10])
    assert compare(labels, np.zeros(100, int), 3).balanced == 0.5
    assert compare(labels, np.where(np.arange(100) < 45, 0, 2), 3).balanced == pytest.approx(0.75)


def test_classes_that_do_not_occur_make_the_commonest_one_better_than_one_over_all():
    found = compare([0, 0, 1, 1], [0, 1, 0, 1], 10)
    assert (found.guess, found.commonest) == (0.5, 0)


@pytest.mark.parametrize(("labels", "classes"), [([0, 1] * 2, 2), ([3] * 500, 10)])
def test_samples_that_cannot_tell_a_perfect_network_from_guessing_are_said_to_be_too_few(labels, classes):
    found = compare(labels, labels, classes)
    assert found.within_noise and found.too_few
    assert "too few, or too much of one class" in found.sentence("accuracy")


def test_labels_beyond_the_networks_classes_cost_no_memory():
    found = compare([1 << 40, 0, 1], [0, 0, 1], 2)
    assert (found.right, found.guess, found.commonest) == (2, 0.5, 0)
    assert found.balanced == pytest.approx(2 / 3)


def test_samples_without_a_label_do_not_count():
    found = compare([-1, 0, 1, -1], [0, 0, 1, 1], 2)
    assert (found.samples, found.right) == (2, 2)
    with pytest.raises(ValueError, match="no sample has a label"):
        compare([-1], [0], 2)
