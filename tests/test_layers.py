"""Imports point down: every module has its place in LAYERS and imports only from below it."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "autogaze"

# From the ground up. A module may import any module of a lower layer and, of its own layer, those of its own folder
# that stand before it. A new module goes into the lowest layer that works. Names are relative to ``autogaze``.
LAYERS: tuple[tuple[str, ...], ...] = (
    # Geometry and what everyone needs
    (
        *("errors", "extras", "ahead", "configuration", "grid", "tiled_attention", "attention"),
        *("algorithms.result", "algorithms.stop_head", "algorithms.ntp", "algorithms.grpo", "algorithms"),
    ),
    # Compiled code
    ("native", "native.compiler", "native.loading", "native.packing", "native.library", "native.pixels"),
    # Data
    ("archive", "frames", "gaze", "sampling", "tiling", "packing", "retarget", "utils", "summary"),
    # Video in and out
    (
        *("video_pixels", "video_sources", "video_timing", "video_container", "video_images", "video"),
        "video_writer",
    ),
    # The interface of selectors; the network
    (
        *("selectors.base", "models", "models.autogaze.configuration_autogaze"),
        *("models.autogaze.scoring", "models.autogaze.modeling_autogaze", "choosing"),
    ),
    # Decoding; selectors without weights
    (
        *("engine", "selectors.spending", "selectors.cells", "selectors.painting", "selectors.distortion"),
        *(
            "selectors.pasting",
            "selectors.greedy",
            "selectors.pyramid",
            "selectors.canvas",
            "selectors.easel",
            "selectors.taps",
        ),
        *("selectors.device", "selectors.motion", "selectors.replenish", "selectors.scored", "selectors.detail"),
        *("selectors.difference", "selectors.flow", "selectors.motion_vectors", "selectors.uniform"),
        *("selectors.uniform_random", "selectors.tiles", "selectors.cascade", "selectors", "streaming"),
    ),
    # Decoding on a processor by compiled code
    ("native.engine",),
    # Decoding on an accelerator
    ("static", "static.choose", "static.desk", "static.steps", "static.graphs", "static.engine"),
    # The class people load
    (
        *("models.autogaze.calibration", "models.autogaze.processing_autogaze"),
        *("models.autogaze.budgets", "models.autogaze.checkpoint", "models.autogaze.decoding"),
        *(
            "models.autogaze.lockstep",
            "models.autogaze.published",
            "models.autogaze.autogaze",
        ),
        *("models.autogaze", "models.autogaze.pool", "models.autogaze.selector"),
    ),
    # Vision models of others
    ("vision_checkpoint",),
    # Losses
    ("losses.pixel", "losses.frozen", "losses.features", "losses.weighted", "losses"),
    # The masked autoencoder
    (
        "tasks.video_mae_reconstruction.configuration_video_mae",
        "tasks.video_mae_reconstruction.block_causal",
        "tasks.video_mae_reconstruction.modeling_video_mae",
        "tasks.video_mae_reconstruction.checkpoint_video_mae",
        "tasks.video_mae_reconstruction.video_mae",
        "tasks.video_mae_reconstruction.incremental",
    ),
    # Rebuilding
    (
        *(
            "reconstructors.base",
            "reconstructors.canvas",
            "reconstructors.provenance",
            "reconstructors.refiner",
            "reconstructors.refined",
        ),
        *("reconstructors.seams", "reconstructors.video_mae", "reconstructors.loading", "reconstructors"),
    ),
    # Sparse vision transformers: packed tokens, families of models, the encoder
    (
        *("vision_encoders.windows", "vision_encoders.attending", "vision_encoders.stream_keys"),
        *("vision_encoders.view", "vision_encoders.places"),
        *("vision_encoders.pixels", "vision_encoders.features", "vision_encoders.options"),
    ),
    (
        *("vision_encoders.towers.base", "vision_encoders.towers.siglip", "vision_encoders.towers.vit"),
        *("vision_encoders.towers.dinov3", "vision_encoders.towers.vjepa2", "vision_encoders.towers"),
    ),
    ("vision_encoders.encoding", "vision_encoders.session", "vision_encoders.encoder", "vision_encoders"),
    (
        *("vision_encoders.siglip.configuration_siglip", "vision_encoders.siglip.modeling_siglip"),
        "vision_encoders.siglip",
    ),
    ("vision_encoders.loading",),
    # What every task is
    ("tasks", "tasks.judged", "tasks.base"),
    # What a selection is good for; a task of one file needs no line of its own
    ("tasks.*", "tasks.video_mae_reconstruction.task", "tasks.video_mae_reconstruction"),
    # A source in, a gaze out
    ("loading", "names", "pipeline", "replay", "gazed", "features_file"),
    # Pictures and data sets
    (
        "captions",
        "drawing",
        "overlay",
        "sheet",
        "visualize",
        "picture_error",
        "error_map",
        "side_by_side",
        "datasets",
        "datasets.video_utils",
        "datasets.labels",
        *("datasets.label_entries", "datasets.label_parquet", "datasets.label_file", "datasets.label_clip"),
        "datasets.own_labels",
        *("datasets.recipes", "datasets.footage", "datasets.footage_cache", "datasets.motion", "datasets.textures"),
        *("datasets.sprites", "datasets.pages", "datasets.procedural", "datasets.sources", "datasets.clips"),
        *("datasets.labellers", "datasets.order", "datasets.stream", "datasets.feed"),
    ),
    # Results as files and as words
    (
        *("results", "files", "encode_summary", "encode", "info", "checks", "terminal", "journal"),
        *("export.networks", "export.programs", "export.formats", "export.manifest"),
    ),
    # Gaze models for other runtimes; gazing while a source plays
    (
        *("export.folder", "export", "watching.capture", "watching.latency", "watching.tally", "watching.watch"),
        *("watching", "watching.meter", "watching.window"),
    ),
    # Labels of many videos
    (
        *("labelling", "labelling.budgets", "labelling.scorers", "labelling.search"),
        *("labelling.expectations", "labelling.promises", "labelling.lazy"),
        *("labelling.settings", "labelling.workers", "labelling.runner"),
    ),
    # Measuring
    (
        *("evaluation.rows", "evaluation.metrics", "evaluation.settings", "evaluation.clips", "evaluation.journal"),
        *("evaluation.fronts", "evaluation.curves", "evaluation.style", "evaluation.labels", "evaluation.findings"),
        *("evaluation.tradeoff", "evaluation.frame_plots", "evaluation.time_plot", "evaluation.plots"),
        *("evaluation.grids", "evaluation.report_tables", "evaluation.report_images", "evaluation.report_words"),
        "evaluation.report",
        *("evaluation.tables", "evaluation.memory", "evaluation.facts", "evaluation.measure", "evaluation.plan"),
        *("evaluation.intervals", "evaluation.stop_head", "evaluation.stop_head_plot", "evaluation.stop_head_files"),
        *("evaluation.outputs", "evaluation.runner"),
        *("evaluation.behaviour_measures", "evaluation.behaviour_statistics"),
        "evaluation.behaviour_rows",
        *("evaluation.behaviour_summary", "evaluation.behaviour", "evaluation.behaviour_plots"),
        "evaluation.behaviour_files",
        *("evaluation.conformal", "evaluation.calibration_clips", "evaluation.calibrate"),
        *("evaluation.calibrate_checkpoint", "evaluation"),
        *("reconstruct_summary", "reconstruct"),
    ),
    # What gazing costs on a machine
    (
        *("benching", "benching.rows", "benching.report", "benching.clip", "benching.naive", "benching.stages"),
        *(
            "benching.candidates",
            "benching.memory",
            "benching.run",
            "benching.table",
            "benching.plot",
            "benching.files",
        ),
    ),
    # Training
    (
        "training",
        *(
            "training.stage",
            "training.data",
            "training.run_settings",
            "training.processes",
            "training.journal",
            "training.state",
        ),
        *("training.batch", "training.stopping", "training.trainer"),
        *(
            "training.strip",
            "training.memory",
            "training.clip_source",
            "training.networks",
            "training.gaze_stage",
            "training.rollouts",
        ),
        *(
            "training.own_gazes",
            "training.stop_head",
            "training.ntp",
            "training.rewards",
            "training.groups",
            "training.grpo",
        ),
        *("training.refiner", "training.video_mae_networks", "training.video_mae"),
    ),
    ("configs", "configs.ntp", "configs.grpo", "configs.stop_head", "configs.reconstructor"),
    # Entry points
    (
        *(
            "commands.words",
            "commands.batch",
            "commands.gaze",
            "commands.reconstruct",
            "commands.encode",
            "commands.evaluate",
            "commands.behaviour",
        ),
        *(
            "commands.calibrate",
            "commands.label",
            "commands.export",
            "commands.watch",
            "commands.bench",
            "commands.info",
            "commands.checks",
            "commands.train",
            "commands",
        ),
    ),
    ("cli",),
)


def modules() -> dict[str, Path]:
    """Dotted name relative to ``autogaze`` → file; the package itself is ""."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def place(module: str) -> tuple[int, int] | None:
    """(layer, position in it) of a module."""
    for layer, names in enumerate(LAYERS):
        if module in names:
            return layer, names.index(module)
    for layer, names in enumerate(LAYERS):
        if f"{module.rpartition('.')[0]}.*" in names:
            return layer, names.index(f"{module.rpartition('.')[0]}.*")
    return None


def folder(module: str) -> str:
    """The package that a module belongs to; a package belongs to itself, like the other modules in it."""
    return module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]


def imports(tree: ast.AST, *, known: set[str]) -> set[str]:
    """Modules of autogaze that a file imports, inside functions too, but not for type checkers alone."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                found |= imports(ast.Module([other], []), known=known)
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {name.partition("autogaze")[2].lstrip(".") for name in names if name.split(".")[0] == "autogaze"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            home, _, module = (node.module or "").partition("autogaze")
            if home == "" and (module == "" or module.startswith(".")):
                module = module.lstrip(".")
                for alias in node.names:
                    below = f"{module}.{alias.name}".lstrip(".")
                    found.add(below if below in known else module)
        else:
            found |= imports(node, known=known)
    return found


def is_allowed(module: str, imported: str) -> bool:
    """Whether ``module`` may import ``imported``."""
    here, there = place(module), place(imported)
    assert here is not None and there is not None
    if there[0] != here[0]:
        return there[0] < here[0]
    return folder(module) == folder(imported) and there[1] < here[1]


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_imports_point_down(module: str) -> None:
    known = modules()
    assert place(module) is not None, f"put {module} into LAYERS, in the lowest layer that works"
    for imported in imports(ast.parse(known[module].read_text()), known=set(known)):
        if imported == "":  # the package itself, for its version
            continue
        # Importing a module runs the packages above it, but those of the importer are running already.
        assert is_allowed(module, imported), f"{module} imports {imported}, which does not lie below it"


def test_layers_name_no_module_that_is_gone() -> None:
    assert {name for layer in LAYERS for name in layer if not name.endswith("*")} <= set(modules())


def test_the_package_is_imported_for_its_version_alone() -> None:
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if module and isinstance(node, ast.ImportFrom) and node.module == "autogaze":
                for alias in node.names:
                    assert alias.name == "__version__" or alias.name in modules(), f"{module} imports {alias.name}"


def test_an_import_inside_a_function_counts_and_one_for_type_checkers_does_not() -> None:
    code = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from autogaze.cli import main
else:
    import autogaze.grid
def f():
    from autogaze import gaze
    from autogaze.selectors.base import Budget
"""
    assert imports(ast.parse(code), known={"gaze", "grid", "selectors.base"}) == {"gaze", "grid", "selectors.base"}


def test_the_ground_may_not_import_what_stands_on_it() -> None:
    assert is_allowed("gaze", "archive")
    assert not is_allowed("archive", "gaze")
    assert not is_allowed("grid", "gaze")
