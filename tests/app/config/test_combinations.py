"""Several values for a key, and the product of several keys."""

import re

import pytest

from eulerian.app.config import Combinations
from eulerian.base.errors import InputError

pytestmark = pytest.mark.one_process


def test_the_product_of_all_values_in_order() -> None:
    found = Combinations.of(["objective.kinetic=0.1,0.5", "field.layers=4", "field.hidden=[16],[32, 32]"])
    assert [each.name for each in found.all] == [
        "kinetic=0.1,hidden=16",
        "kinetic=0.1,hidden=32_32",
        "kinetic=0.5,hidden=16",
        "kinetic=0.5,hidden=32_32",
    ]
    assert found.all[1].overrides == ("objective.kinetic=0.1", "field.layers=4", "field.hidden=[32, 32]")
    assert found.all[1].values == {"objective.kinetic": 0.1, "field.hidden": [32, 32]}
    assert found.keys == {"objective.kinetic": ("0.1", "0.5"), "field.hidden": ("[16]", "[32, 32]")}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", [1, 2]),
        (" 1e-3 , 2 ", [1e-3, 2]),
        ("tanh,relu", ["tanh", "relu"]),
        ('"a,b","c"', ["a,b", "c"]),
        ("'a,b',c", ["a,b", "c"]),
        ('"a\\",b",c', ['a",b', "c"]),
        ("[1,2],[3]", [[1, 2], [3]]),
        ("[[1,2],[3,4]],[[5,6]]", [[[1, 2], [3, 4]], [[5, 6]]]),
        ("{ a = 1, b = [1,2] },{ a = 2 }", [{"a": 1, "b": [1, 2]}, {"a": 2}]),
        ("max(x, y),x**2", ["max(x, y)", "x**2"]),
        ("true,false", [True, False]),
        ("-1.0,1.0", [-1.0, 1.0]),
        ("O'Brien.csv,b.csv", ["O'Brien.csv", "b.csv"]),
        ('"5 min",10', ["5 min", 10]),
    ],
)
def test_values_are_split_at_commas_outside_of_brackets_and_quotes(text: str, values: list[object]) -> None:
    assert [each.values["a.b"] for each in Combinations.of([f"a.b={text}"]).all] == values


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["a.b"], "needs a key and its values"),
        (["=1,2"], "needs a key and its values"),
        (["a.b=1"], "nothing to sweep"),
        (["a.b=[1,2]"], "nothing to sweep"),
        ([], "nothing to sweep"),
        (["a.b=1,"], "a value is missing"),
        (["a.b=1,,2"], "a value is missing"),
        (["a.b="], "a value is missing"),
        (["a.b=1,2,1"], "given twice; got '1'"),
        (["a.b=1,2", "a.b=3"], "more than once"),
        (["a.b=[1,2"], "a ] missing"),
        (["a.b=1,2]"], "a ] too much"),
        (["a.b=[1},2"], "a } too much"),
        (["a.b='1,2"], "a ' missing"),
        (["a.b=[1 2],3"], "not valid TOML"),
        ([f"a.b={','.join(map(str, range(200)))}", f"a.c={','.join(map(str, range(200)))}"], "more than 10000"),
    ],
)
def test_what_is_refused(settings: list[str], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        Combinations.of(settings)


def test_a_key_with_one_value_may_come_again() -> None:
    """As with --set of other commands, where the last one counts."""
    found = Combinations.of(["a.b=1,2", "a.c=1", "a.c=2"])
    assert found.all[0].overrides == ("a.b=1", "a.c=1", "a.c=2")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (["a.n=1,2", "b.n=3,4"], ["a.n=1,b.n=3", "a.n=1,b.n=4", "a.n=2,b.n=3", "a.n=2,b.n=4"]),
        (["a.0.m=1,2"], ["m=1", "m=2"]),
        (["a.0.m=1,2", "a.1.m=3,4"], ["a.0.m=1,a.1.m=3", "a.0.m=1,a.1.m=4", "a.0.m=2,a.1.m=3", "a.0.m=2,a.1.m=4"]),
        (["a.b.0=1,2"], ["b.0=1", "b.0=2"]),
        (["a.f=../x/y.csv,z"], ["f=..-x-y.csv", "f=z"]),
        (["a.m=[-1.0, 2],[1.0, 2]"], ["m=-1.0_2", "m=1.0_2"]),
        (['a.m="5 min",1e-3'], ["m=5min", "m=1e-3"]),
    ],
)
def test_names_are_readable(settings: list[str], names: list[str]) -> None:
    assert [each.name for each in Combinations.of(settings).all] == names


def test_names_are_always_different_and_fit_for_folders() -> None:
    values = ["1", "[1]", "x/y", "x:y", "ä,ö", "(((", 300 * "a", 301 * "a", ".."]
    settings = ["a.b=" + ",".join(f'"{value}"' for value in values)]
    settings += [f"a.{letter}={100 * letter},2" for letter in "cdefgh"]
    names = [each.name for each in Combinations.of(settings).all]
    assert len(set(names)) == len(values) * 2**6
    assert all(re.fullmatch(r"[\w.+,=-]{1,200}", name, re.ASCII) for name in names)


def test_a_name_does_not_depend_on_the_other_values() -> None:
    """So that a sweep can be made larger, and what is there stays."""
    few, more = (Combinations.of([f"a.b={text}", "a.c=[1],[2]"]).all for text in ("0.1,0.2", "0.05,0.2,0.1"))
    assert {each.name for each in few} < {each.name for each in more}
