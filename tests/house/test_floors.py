"""Rule: imports fall. Between packages from floor to floor, inside a package down a declared order; no circles.

Imports inside functions count like any other, and so does the dotted name of a module of ours in a string.
"""

from __future__ import annotations

import ast
import re

MAY_IMPORT = {
    "havoc_core": set(),
    "havoc_problems": {"havoc_core"},
    "havoc_report": {"havoc_core"},
    "havoc_data": {"havoc_core", "havoc_problems", "havoc_report"},
    "havoc_inference": {"havoc_core"},
    "havoc_eval": {"havoc_core", "havoc_problems", "havoc_report"},
    "havoc_training": {"havoc_core", "havoc_problems", "havoc_report", "havoc_data"},
    "havoc_rag": {"havoc_core", "havoc_report", "havoc_data", "havoc_inference"},
    "havoc_tuning": {"havoc_core", "havoc_report", "havoc_data", "havoc_training"},
    "havoc_cli": {"havoc_core", "havoc_problems", "havoc_report", "havoc_data", "havoc_inference", "havoc_eval",
                  "havoc_training", "havoc_rag", "havoc_tuning"},
}  # fmt: skip
"""Package -> packages that it may import, besides itself."""

PROBLEMS_MAY_IMPORT = {"havoc_core.errors", "havoc_core.registry"}
"""Verified problems stand on errors and on the shelf that their families lie on; no torch comes with either."""

ORDER = {
    "havoc_core": [
        "errors", "config", "config_files", "registry", "run_files", "processor", "device", "distributed", "log", "statistics", "labels",
        "fast_bpe", "tokenizer", "chat_format", "cpu_library", "layers/", "model", "models/", "costs", "loss_kernel", "loss",
        "tensor_file", "checkpoint",
    ],
    "havoc_core/layers": [
        "norm", "rope", "embedding", "segments", "kv_cache", "fp8_linear", "attention_kernel", "attention", "feed_forward", "block",
    ],
    "havoc_problems": [
        "problem", "rounding", "verification", "families/", "units", "expressions", "grading", "splits", "catalog",
    ],
    "havoc_report": [
        "escaping", "stylesheet", "page", "tables", "drawing", "axes", "plots", "run_record", "verdict", "run_curves",
        "run_results", "run_speed", "run_page", "data_rules", "data_record", "data_record_json", "data_verdict", "data_plots", "disclosure",
        "data_sections", "data_text_sections", "data_page", "data_lines",
    ],
    "havoc_data": [
        "names", "document", "sections", "unpacking", "inputs", "archives", "encoding", "reader", "licences", "readers/", "source",
        "sources/", "discovery", "runner", "runners/", "shard_writer", "remote", "store", "token_format", "interchange/",
        "token_export", "token_import", "prepare/", "loading/",
    ],
    "havoc_data/prepare": [
        "rule_words", "rules", "languages", "shapes", "personal_data", "shingles", "minhash", "duplicates", "templates",
        "exam_words", "exam_match", "exam_files", "exams", "questions", "facts", "ledger", "seal", "comparable", "examine",
        "compare", "settle", "corpus", "collect", "card", "train_tokenizer", "tokenize", "build",
    ],
    "havoc_data/loading": ["schedule", "permutation", "packing", "pack_files", "ledger", "loader", "replay"],
    "havoc_inference": [
        "sampling", "request", "load", "vocabulary", "grammar", "text_stream", "pages", "runner", "cpu_runner", "scheduler", "engine", "chat", "service",
        "server/", "export/", "exported",
    ],
    "havoc_inference/server": [
        "mathml", "markdown", "limits", "errors", "page_routes", "failures", "keys", "protocol", "metrics", "serving", "prompts", "log_probs",
        "generation", "event_stream", "asked", "completions", "chat_completions", "embeddings", "tokens", "gate", "connection",
        "app", "listening",
    ],
    "havoc_inference/export": [
        "exportable", "safetensors_file", "output_folder", "exported_weights", "comparison", "tokenizer_files", "hugging_face",
        "gguf_tokens", "gguf", "probe", "reference", "text_questions", "ask_transformers", "ask_llama_cpp", "child", "proof_transformers",
        "proof_llama_cpp", "card", "exporting",
    ],
    "havoc_eval": [
        "language_model", "contamination", "compression", "held_out_text", "task", "scoring", "tasks/", "runner", "harness",
    ],
    "havoc_training": [
        "shelves", "threads", "batch_plan", "schedules", "parameter_groups", "memory/", "updater", "planner/", "memory_choice",
        "optimizer", "optimizers/", "placement", "gradient_scaler", "step", "state", "validation", "metrics", "observers",
        "tracker", "trackers/", "checkpointing", "interrupts", "continuation", "data_stages", "repetition", "run_plan",
        "trainer", "build",
    ],
    "havoc_training/memory": [
        "presets", "stochastic_rounding", "split_master", "blockwise", "arena", "host_link", "gradients", "adamw_update",
        "flat_optimizer", "recompute", "streaming",
    ],
    "havoc_training/planner": [
        "cards", "machine", "block_tape", "ledger", "choice", "rates", "loss_fit", "plan", "solve", "trace", "device_rates", "probe",
    ],
    "havoc_cli": [
        "flags", "subcommands", "run_lock", "stages", "config", "problems", "checkpoint", "data_card", "data_exchange",
        "data_replay", "data", "tokenizer", "train", "plan_lines", "plan", "model_folder", "generate", "chat_input", "chat", "serve", "harness", "evaluate", "speed_facts",
        "run_facts", "report", "export", "import_", "run", "main",
    ],
}  # fmt: skip
"""Folder -> its files and folders from the bottom up. A shelf has no order: nothing on it needs its neighbours."""

OUR_MODULE = re.compile(r"havoc_\w+(\.\w+)+")


def imports(module, names):
    """(imported module of ours, line) of everything that a module imports or names in a string."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in names else node.module or "" for name in whole]
            assert node.level == 0, f"{module.path}:{node.lineno}: write the import in full"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and OUR_MODULE.fullmatch(node.value):
            found = [node.value] if node.value in names else []
        else:
            continue
        yield from ((name, node.lineno) for name in found if name.split(".")[0] in MAY_IMPORT)


def rising_imports(modules):
    """Imports of a package on the same floor or on one above."""
    for module in modules.values():
        package = module.name.split(".")[0]
        for name, line in imports(module, modules):
            target = name.split(".")[0]
            rises = target != package and target not in MAY_IMPORT[package]
            too_much = (package, target) == ("havoc_problems", "havoc_core") and name not in PROBLEMS_MAY_IMPORT
            if rises or too_much:
                yield f"{module.path}:{line} imports {name}"


def imports_against_the_order(modules, order):
    """Imports, inside a package, of something that does not stand above the importer in its list."""
    for module in modules.values():
        for name, line in imports(module, modules):
            if name.split(".")[0] != module.name.split(".")[0] or modules[name].is_package:
                continue
            folder, mine, other = where_they_part(module.name, name)
            entries = order.get(folder)
            if entries is not None and entries.index(other) >= entries.index(mine):
                yield f"{module.path}:{line} imports {name}"


def where_they_part(first, second):
    """(folder, entry of the first, entry of the second) at the first level where two modules differ."""
    one, two = first.split("."), second.split(".")
    level = next(i for i in range(min(len(one), len(two))) if one[i] != two[i])
    entry_one, entry_two = (parts[level] + ("/" if len(parts) > level + 1 else "") for parts in (one, two))
    return "/".join(one[:level]), entry_one, entry_two


def circles(modules):
    """Modules that import themselves by a detour."""
    graph = {
        name: {target for target, _ in imports(module, modules) if target != name} for name, module in modules.items()
    }
    found, done = [], set()

    def visit(name, way):
        if name in way:
            found.append(" -> ".join([*way[way.index(name) :], name]))
        elif name not in done:
            for target in sorted(graph.get(name, ())):
                visit(target, [*way, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    return found


def test_imports_fall_from_floor_to_floor(modules):
    assert list(rising_imports(modules)) == []


def test_imports_inside_a_package_follow_its_declared_order(modules):
    assert list(imports_against_the_order(modules, ORDER)) == []


def test_there_are_no_circles(modules):
    assert circles(modules) == []


def test_every_file_has_its_place_in_the_order(modules):
    for module in modules.values():
        folder, _, file = module.path.removesuffix(".py").rpartition("/")
        if module.is_package:
            folder, _, file = folder.rpartition("/")
            file += "/"
        if folder in ORDER:
            assert file in ORDER[folder], f"{module.path} is not in the order of {folder}: say where it stands"


def test_the_order_names_nothing_that_is_gone(modules):
    paths = {module.path for module in modules.values()}
    for folder, entries in ORDER.items():
        for entry in entries:
            path = f"{folder}/{entry}__init__.py" if entry.endswith("/") else f"{folder}/{entry}.py"
            assert path in paths, f"{path} is in the order and not in src/"


def test_a_rising_import_is_found_even_in_a_function_and_in_a_string(parse):
    hidden = parse("def late():\n    from havoc_training.trainer import Trainer", "havoc_data.store")
    named = parse("SHELF = 'havoc_training.trainer'", "havoc_eval.task")
    above = parse("", "havoc_training.trainer")
    modules = {module.name: module for module in (hidden, named, above)}
    assert list(rising_imports(modules)) == [
        "havoc_data/store.py:2 imports havoc_training.trainer",
        "havoc_eval/task.py:1 imports havoc_training.trainer",
    ]


def test_an_import_against_the_order_and_a_circle_are_found(parse):
    low = parse("from havoc_core import high", "havoc_core.low")
    high = parse("from havoc_core.low import thing", "havoc_core.high")
    modules = {module.name: module for module in (low, high)}
    assert list(imports_against_the_order(modules, {"havoc_core": ["low", "high"]})) == [
        "havoc_core/low.py:1 imports havoc_core.high"
    ]
    assert circles(modules) == ["havoc_core.low -> havoc_core.high -> havoc_core.low"]
