"""Nothing that is read can run: no pickle, no eval, no shell.

Hostile pickles are in embedding/test_import_checkpoint.py; hashes of what is fetched and paths of
archives in corpora/test_fetch.py; paths of manifests in catalogue/test_edit.py,
retrieval/test_index_faiss.py and test_hostile.py; access rights in service/test_service.py and
retrieval/test_index_postgres.py.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "qbhkit"
UNPICKLER = PACKAGE / "embedding" / "import_checkpoint.py"  # the one that is restricted
BENCHMARKS = PACKAGE / "evaluation" / "benchmarks"
# A tool of the kit's authors writes pickles for the unpickler to refuse.
FUZZER = BENCHMARKS / "fuzz_targets.py"
UNPICKLERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"}
LOADERS = {"yaml", "torch", "numpy", "joblib"}
RUNNERS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pd.read_pickle"}


def dangers(code: str) -> list[str]:
    """Name what could run something that a file says."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in {*UNPICKLERS, "joblib"}]
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            loads = node.module in LOADERS and any("load" in name for name in names)
            runs = node.module in UNPICKLERS and names != {"UnpicklingError"}
            found += [f"from {node.module}"] * (loads or runs)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if (
                name in RUNNERS
                or (name.startswith("yaml.") and name not in ("yaml.safe_load", "yaml.safe_dump"))
                or (name == "torch.load" and given.get("weights_only") != "True")
                or (name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False")
                or given.get("shell", "False") != "False"
                or given.get("allow_pickle", "False") != "False"
            ):
                found.append(ast.unparse(node))
    return found


def test_nothing_that_is_read_can_run():
    files = sorted(PACKAGE.rglob("*.py"))
    found = {path: dangers(path.read_text("utf-8")) for path in files}
    assert {path: what for path, what in found.items() if what} == {
        UNPICKLER: ["pickle"],
        FUZZER: ["pickle"],
    }


def test_pickle_serves_the_restricted_unpickler_alone():
    trees = [ast.parse(path.read_text("utf-8")) for path in (FUZZER, UNPICKLER)]
    for tree, used in zip(trees, ({"pickle.dumps"}, {"pickle.Unpickler"}), strict=True):
        names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert {name for name in names if name.startswith("pickle.")} == used
    (reader,) = (
        node
        for node in trees[1].body
        if isinstance(node, ast.ClassDef) and "pickle.Unpickler" in map(ast.unparse, node.bases)
    )
    assert reader.name == "_PlainUnpickler"
    assert "find_class" in {node.name for node in reader.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import joblib", "eval(x)", "os.system(x)",
        "yaml.load(x)", "from yaml import load", "torch.load(x)", "np.load(x)",
        "np.load(x, allow_pickle=True)", "np.save(x, y, allow_pickle=1)",
        "subprocess.run(x, shell=True)",
    ],
)  # fmt: skip
def test_what_runs_is_found(code):
    assert dangers(code)


def test_what_runs_nothing_is_let_off():
    assert not dangers(
        "from pickle import UnpicklingError; network.eval(); re.compile(x); yaml.safe_load(x); "
        "torch.load(x, weights_only=True); np.load(x, allow_pickle=False); yaml.safe_dump(x); "
        "subprocess.run([x], shell=False)"
    )
