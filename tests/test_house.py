"""The rules of the project, read from the sources: who imports whom, one spelling of Keras, the public names."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("tf_pixpro", "tf_evonorm", "experiments")

# Folders of each package from the ground up. A folder imports itself and lower ones; packages import downward too.
LAW = {
    "tf_evonorm": (
        ("keras_generation", "atomic", "mistakes"),
        ("functional", "found"),
        ("layers",),
        ("backbones", "replace"),
        ("biggan", "search.space"),
        ("search.trial",),
        ("search.study",),
        ("search",),
        ("",),
    ),
    "tf_pixpro": (
        ("version", "geometry", "optimization", "checkpoints"),
        ("views", "formats"),
        ("data",),
        ("pretext",),
        ("export", "callbacks", "train"),
        ("transfer.models", "transfer.records", "transfer.average_precision", "transfer.paste_back"),
        ("transfer",),
        ("",),
    ),
    "experiments": (
        ("launch",),
        ("configs", "gan"),
        ("builders",),
        ("studies",),
        ("benchmarks",),
        ("",),
    ),
}
ORDER = tuple(LAW)

PUBLIC = {
    "tf_pixpro": {
        "BYOL",
        "LARS",
        "PixContrast",
        "PixPro",
        "PixelConsistency",
        "PixelContrast",
        "PixelPropagation",
        "ProjectionHead",
        "SimCLR",
        "WarmupCosine",
        "WarmupStep",
        "__version__",
        "cell_centres",
        "export_encoder",
        "load_backbone",
        "momentum_schedule",
        "pixel_consistency",
        "positive_mask",
        "save_backbone",
    },
}


def sources(*packages):
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


# Of a config only `get_config` is called, by ml_collections.
TYPED = [path for path in sources("tf_pixpro", "tf_evonorm", "experiments") if "configs" not in path.parts]


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path) -> set:
    """Full names of the modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            paths = {name: ROOT / name.replace(".", "/") for name in inner}
            files = {name for name, path in paths.items() if path.with_suffix(".py").exists() or path.is_dir()}
            found |= files or {node.module}
    return found


def room(module: str) -> tuple[int, int, str]:
    """(package's place in the order, floor, room) of a module; the package itself and its programs are the room ''."""
    package, _, inner = module.partition(".")
    while True:
        for number, rooms in enumerate(LAW[package]):
            if inner in rooms:
                return ORDER.index(package), number, inner
        inner = inner.rpartition(".")[0]


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=module_name)
def test_imports_flow_downward(path):
    here = module_name(path)
    package, floor, name = room(here)
    for there in imports(path):
        if there.partition(".")[0] not in PACKAGES:
            continue
        of_package, of_floor, of_name = room(there)
        assert of_package <= package, f"{here} imports {there}: {ORDER[of_package]} lies above {ORDER[package]}"
        assert of_package < package or of_floor < floor or of_name == name, (
            f"{here} imports {there}: {of_name or ORDER[package]} does not lie below {name or ORDER[package]}"
        )


@pytest.mark.parametrize("path", sources("tf_pixpro", "tf_evonorm"), ids=module_name)
def test_libraries_read_no_flags_and_spell_keras_one_way(path):
    for there in imports(path):
        assert not there.startswith(("absl.flags", "ml_collections")), f"{there}: flags belong to experiments/"
        assert there.partition(".")[0] not in ("keras", "tf_keras"), f"{there}: write tf.keras"


DRAWS_AT_ITS_TOP = ("tf_pixpro.pretext.figures", "experiments.demo")  # imported only by those who draw


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=module_name)
def test_optuna_stays_in_the_study_and_matplotlib_where_figures_are_drawn(path):
    here, found = module_name(path), {name.partition(".")[0] for name in imports(path)}
    assert "optuna" not in found or here.startswith("tf_evonorm.search.study"), here
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    if any("matplotlib" in ast.unparse(node) for node in top):
        assert here in DRAWS_AT_ITS_TOP, f"{here}: import matplotlib in the function that draws"


def test_official_vision_is_imported_by_transfer_only():
    for path in sources("tf_pixpro", "tf_evonorm"):
        if "transfer" not in path.parts:
            assert not [name for name in imports(path) if name.startswith("official.vision")], path


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=module_name)
def test_every_file_says_what_it_is_for_and_stays_small(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path}: no docstring"
    assert len(text.splitlines()) <= 450, f"{path}: two purposes in one room?"


@pytest.mark.parametrize("path", TYPED, ids=module_name)
def test_checks_of_arguments_raise_a_mistake(path):
    """Programs report it in one line; a plain ValueError shows its traceback, unless it is caught nearby."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Raise, ast.Return)):
            text = ast.unparse(node).partition(" ")[2]
            assert not (text.startswith("ValueError") and "Received" in text), f"{path}:{node.lineno}: raise a Mistake"


def public_functions(tree, owner=""):
    """(name, function) of every public function, method and __init__, without the methods that Keras documents."""
    keras = ("build", "call", "compute_output_shape", "get_config") if owner else ()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node, f"{node.name}.")
        elif (
            isinstance(node, ast.FunctionDef) and node.name not in keras and node.name.strip("_") in (node.name, "init")
        ):
            yield owner + node.name, node


@pytest.mark.parametrize("path", TYPED, ids=module_name)
def test_public_signatures_have_type_hints(path):
    for name, function in public_functions(ast.parse(path.read_text())):
        taken = function.args
        arguments = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, *filter(None, (taken.vararg, taken.kwarg))]
        bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        if function.returns is None and not name.endswith("__init__"):
            bare.append("return")
        assert not bare, f"{name}: no type hint for {', '.join(bare)}"


def test_public_names_are_these():
    import tf_pixpro

    assert set(tf_pixpro.__all__) == PUBLIC["tf_pixpro"]
    assert all(getattr(tf_pixpro, name) is not None for name in tf_pixpro.__all__)


def test_public_names_are_in_the_readme():
    text = (ROOT / "README.md").read_text()
    import tf_evonorm
    import tf_pixpro

    names = {*tf_pixpro.__all__, *tf_evonorm.__all__} - {"__version__"}
    assert not sorted(name for name in names if name not in text)


def test_every_public_layer_is_under_contract():
    import tensorflow as tf
    from contract import CASES

    import tf_evonorm
    import tf_pixpro

    public = {
        value
        for package in (tf_pixpro, tf_evonorm)
        for value in (getattr(package, name) for name in package.__all__)
        if isinstance(value, type)
        and issubclass(value, tf.keras.layers.Layer)
        and not issubclass(value, tf.keras.Model)
    }
    covered = {case.layer for case in CASES}
    assert not sorted(layer.__name__ for layer in public - covered)


def test_a_binary_loads_one_keras_only():
    """Two in one process overwrite each other's names, and saved models come back as the other's."""
    import tensorflow as tf

    binaries = [module_name(path) for path in sources("experiments") if "configs" not in path.parts]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {binaries}]"
    if importlib.util.find_spec("tensorflow_addons"):
        code += "; import tensorflow_addons"
    code += "; print(*sorted({'keras', 'tf_keras'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [tf.keras.layers.Layer.__module__.partition(".")[0]], run.stdout
