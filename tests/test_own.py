"""Names of a user's functions: found in every process, or refused in one line."""

import functools
import sys

import pytest

from clouds_tf import own


def doubled(x):
    return 2 * x


thrice = lambda x: 3 * x  # noqa: E731


class Scaled:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, x):
        return self.factor * x


fivefold = Scaled(5)


@pytest.mark.parametrize("given", [doubled, thrice, fivefold, Scaled, Scaled.__call__])
def test_what_has_a_name_is_found_by_it(given):
    name = own.name_of("loss", given, {})
    assert own.is_own(name) and own.find("loss", name) is given


def test_arguments_are_part_of_the_name():
    name = own.name_of("loss", functools.partial(Scaled, factor=4), {})
    assert name == "test_own:Scaled(factor=4)" and own.find("loss", name)()(2) == 8
    with pytest.raises(ValueError, match="expected keyword arguments with literals"):
        own.find("loss", "test_own:Scaled(factor=four)")


def test_a_name_of_the_library_is_preferred():
    assert own.name_of("schedule", doubled, {"twice": doubled}) == "twice"


@pytest.mark.parametrize(
    "given, shown",
    [
        (lambda x: x, "<lambda>"),
        (functools.partial(doubled, 3), "literals by keyword"),
        (functools.partial(Scaled, factor=[1].pop), "literals by keyword"),
        (Scaled(7), "Scaled object"),
    ],
)
def test_what_no_other_process_could_find_is_refused(given, shown):
    with pytest.raises(ValueError, match=f"^loss: .*{shown}"):
        own.name_of("loss", given, {})


@pytest.mark.parametrize(
    "text, names",
    [
        ("0.5*bce+2*mine:soft(gamma=2)", ["mine:soft"]),
        ("addons:Yogi", []),
        ("keras_cv:rand_augment,grid_mask", []),
        ("a.b:C.d", ["a.b:C.d"]),
        (("mine:soft(kind='a:b')", "mine:hard"), ["mine:soft", "mine:hard"]),
    ],
)
def test_names_are_found_within_settings(text, names):
    assert own.names_in(text) == names


def test_a_module_of_the_working_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "of_the_folder.py").write_text("def f(x):\n    return x + 1\n")
    assert own.call("loss", "of_the_folder:f", 1) == 2
    first = own.fingerprint("loss", "of_the_folder:f")
    assert len(first) == 12 and own.fingerprint("loss", "clouds_tf.own:find") == ""
    with pytest.raises(ValueError, match="^loss: of_the_folder:f does not take.*too many"):
        own.call("loss", "of_the_folder:f", 1, 2)


@pytest.mark.parametrize(
    "name, fault",
    [
        ("nowhere_at_all:f", "no module 'nowhere_at_all'; run .* folder of nowhere_at_all.py, or"),
        ("os.nowhere:f", "no module 'os.nowhere'"),
        ("test_own:g", "test_own.py has no g"),
        ("__main__:g_of_a_notebook", "defined in the program or notebook of the training"),
        ("broken_module:f", "importing broken_module failed: ZeroDivisionError"),
        ("needs_another:f", "importing needs_another failed: No module named 'not_installed'"),
        ("addons:f", "expected module:function"),
    ],
)
def test_what_is_missing_is_said_in_one_line(name, fault, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    (tmp_path / "needs_another.py").write_text("import not_installed\n")
    with pytest.raises(ValueError, match=f"^encoder: .*{fault}"):
        own.find("encoder", name)
