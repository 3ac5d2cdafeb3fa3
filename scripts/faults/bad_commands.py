"""Wrong command lines, and what might run code or leave its folder."""

from collections.abc import Iterator

from bad_cases import BASE, Case, Content, sets


def command_cases() -> Iterator[Case]:
    """Everything that is wrong with a command line, or dangerous in a configuration."""
    yield from _code()
    yield from _options()


_MODULE = "open('executed', 'w').close()\nfield = None\n"


def _code() -> Iterator[Case]:
    """What might run code or leave its folder."""
    for text in ("__import__('os').system('touch executed')", "eval('1')", "open('executed', 'w')", "exec(x)"):
        value = f'density.initial=[{{ kind = "expression", value = "{text}" }}]'
        yield sets("code", value, names=("density.initial.0.value",), name=text)
    for options in (
        "-tao_type python -tao_python_type mymodule.Tao",
        "-pc_type python",
        "-options_file options.txt",
        "-options_string '-tao_type python'",
        "-tao_view ascii:$(touch executed).gz",
        "-tao_monitor ascii:/tmp/x",
        "tao_monitor",
    ):
        value = f'optimiser.petsc_options="{options}"'
        yield sets("code", value, command="train", name=options, names=("optimiser.petsc_options",))
    module: dict[str, Content] = {"mymodule.py": _MODULE}
    python = "field={ kind = 'python', object = 'mymodule:field' }"
    for command in ("solve", "train", "ideal", "verify", "compare"):
        arguments = (command, "base.toml", "--set", python, "--no-python")
        yield Case("code", f"{command} --no-python", arguments, ("field.kind",), module)
    changed: dict[str, Content] = {
        "mymodule.py": _MODULE,
        "old/config.resolved.toml": BASE.replace(
            'kind = "mlp"\nhidden = [4]', 'kind = "python"\nobject = "mymodule:field"\nfolder = ".."'
        ),
    }
    points: dict[str, Content] = {"new.csv": "x,y\n0.1,0.2\n"}
    for arguments in (
        ("push", "old", "--samples", "new.csv"),
        ("sample", "old", "-n", "5"),
        ("plot", "old", "--animate"),
    ):
        files = changed | points
        yield Case("code", f"{arguments[0]} --no-python", (*arguments, "--no-python"), ("field.kind",), files, run=True)
    late = "objective.terminal.target=[0.0]"  # wrong besides: the module must not have been imported
    for arguments in (
        ("--set", python, "--set", late),
        ("--set", python, "--set", "density.initial.0.mean=[90.0, 0.0]"),
    ):
        names = ("objective.terminal.target", "density.initial.0")
        yield Case("code", f"module unneeded: {arguments[-1]}", ("solve", "base.toml", *arguments), names, module)
    for name in ("os.system('x')", "mymodule", ":field", "mymodule:", "../mymodule:field", "mymodule:field()"):
        yield sets("code", f'field={{ kind = "python", object = "{name}" }}', names=("field.object",), name=name)
    for name in ("nomodule:field", "mymodule:nofield", "mymodule:field", "json:loads"):
        case = sets("code", f"field={{ kind = 'python', object = '{name}' }}", names=("field.object",))
        yield Case(case.group, f"object {name}", case.arguments, case.names, {"mymodule.py": "field = None\n"})
    for name in ("../gaussian", "/etc/passwd", "..", ".", "gaussian/..", "gaussian/gaussian.toml", "~", "", "x\n"):
        yield Case("code", f"init {name!r}", ("init", name), ("template", "folder"))


def _options() -> Iterator[Case]:
    for override in ("", "=", "x", "=1", "a..b=1", "objective.kinetic", "objective.kinetic=", "..=1", "a=[", "a='"):
        yield Case(
            "options",
            f"--set {override!r}",
            ("solve", "base.toml", "--set", override),
            ("--set", "a:", "objective.kinetic"),
        )
    for key in (
        ".".join(["a"] * 200),
        "density.initial.7.std",
        "density.initial.-1.std",
        "field.seed.a",
        "density.initial.std",
    ):
        yield sets("options", f"{key}=1", names=("--set", key.rpartition(".")[0]), name=f"--set {key[:30]}")
    yield sets("options", "field.theta=" + "[" * 20_000, names=("field.theta",), name="--set of 20,000 brackets")
    solve = ("solve", "base.toml")
    full: dict[str, Content] = {"full/precious.txt": "keep me"}
    a_file: dict[str, Content] = {"file": "x"}
    for name, arguments, names, files in (
        ("--output of other things", (*solve, "--output", "full"), ("output.directory",), full),
        ("--overwrite of other things", (*solve, "--output", "full", "--overwrite"), ("output.directory",), full),
        ("--output a file", (*solve, "--output", "file"), ("output.directory",), a_file),
        ("--output below a file", (*solve, "--output", "file/run"), ("output.directory",), a_file),
        ("--output nothing", (*solve, "--output", ""), ("output.directory", "--output"), {}),
        ("--output too long", (*solve, "--output", "x" * 3000), ("output.directory",), {}),
        ("--output not writable", (*solve, "--output", "/proc/run"), ("output.directory",), {}),
        ("an unknown option", (*solve, "--frobnicate"), ("--frobnicate",), {}),
        ("an option cut short", (*solve, "--over"), ("--over",), {}),
        ("an unknown command", ("slove", "base.toml"), ("slove",), {}),
        ("no command", (), ("COMMAND",), {}),
        ("no configuration", ("train",), ("CONFIG.toml",), {}),
        ("an unknown method", (*solve, "--method", "pigeons"), ("--method",), {}),
        ("degrees without a study", ("compare", "base.toml", "--degrees", "1"), ("--degrees",), {}),
        ("a wrong degree", ("compare", "base.toml", "--study", "--degrees", "7"), ("--degrees",), {}),
        ("frames without an animation", ("plot", "base.toml", "--frames", "3"), ("--frames",), {}),
        ("plot of no run", ("plot", "."), (".",), {}),
        ("push of no run", ("push", "nowhere", "--samples", "x.csv"), ("nowhere",), {}),
        ("sample of no run", ("sample", "nowhere", "-n", "3"), ("nowhere",), {}),
        ("mesh of nothing", ("mesh", "nowhere.msh"), ("nowhere.msh",), {}),
    ):
        yield Case("options", name, arguments, names, files)
    yield Case("options", "a run that is there", (*solve, "--output", "old"), ("output.directory",), run=True)
    sample = ("sample", "old", "-n")
    yield Case("options", "sample -n 0", (*sample, "0"), ("-n",), run=True)
    yield Case("options", "sample --seed -1", (*sample, "5", "--seed", "-1"), ("--seed",), run=True)
    yield Case("options", "push without points", ("push", "old", "--samples", "no.csv"), ("--samples",), run=True)
    pushed = ("push", "old", "--samples", "p.csv")
    points: dict[str, Content] = {"p.csv": "x,y\n0.1,0.2\n"}
    yield Case("options", "push --set of a field", (*pushed, "--set", "field.layers=3"), ("--set",), points, run=True)
    yield Case("options", "push --columns", (*pushed, "--columns", "u,v"), ("--columns",), points, run=True)
    yield Case(
        "options",
        "push onto its points",
        (*pushed, "--output", "p.csv", "--overwrite"),
        ("p.csv", "--output"),
        points,
        run=True,
    )
