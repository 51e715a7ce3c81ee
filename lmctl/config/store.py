"""Registering the verbs in Hydra's config store: their schemas, and the configs of verbs without a YAML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from lmctl.config.schema import ProcessLauncherConfig
from lmctl.config.table import defaults, structured
from lmctl.config.verb import ConfigVerb


def conf_dir() -> Path:
    """Directory of the shipped YAML: inside an installed wheel, next to the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise FileNotFoundError(f"lmctl is installed without its conf directory (looked in and beside {package})")


def register(one: ConfigVerb) -> None:
    """Add `schema_VERB`, `groups_VERB`, and the config itself of a verb without a YAML file, to the config store."""
    store = ConfigStore.instance()
    if f"schema_{one.name}.yaml" in store.repo:
        return
    chosen = [{group: option} for group, option in defaults(one.schema).items()]
    store.store(name=f"groups_{one.name}", node={"defaults": [*chosen, "_self_"]}, provider="lmctl")
    store.store(name=f"schema_{one.name}", node=_writable(structured(one.schema)), provider="lmctl")
    if not _file_of(one).is_file():
        store.store(name=one.name, node=OmegaConf.create(settings_of(one)), provider="lmctl")


def register_launcher() -> None:
    """Add the settings of `hydra/launcher=process` to the config store."""
    launcher = _writable(OmegaConf.structured(ProcessLauncherConfig))
    ConfigStore.instance().store(group="hydra/launcher", name="process", node=launcher, provider="lmctl")


def _file_of(one: ConfigVerb) -> Path:
    """Path of a verb's YAML file, which need not exist."""
    return conf_dir() / f"{one.name}.yaml"


def settings_of(one: ConfigVerb) -> dict[str, Any]:
    """The config of a verb as in its YAML file; of one without a file, what the file would contain."""
    if (file := _file_of(one)).is_file():
        return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file)))
    logging = [{"override hydra/job_logging": "none"}, {"override hydra/hydra_logging": "none"}]
    launcher = {"override hydra/launcher": "process"}
    return {
        "defaults": [f"schema_{one.name}", f"groups_{one.name}", "_self_", *logging, launcher],
        "hydra": {"output_subdir": None, "run": {"dir": "."}, "job": {"name": one.name, "chdir": False}},
    }


def _writable(node: Any) -> Any:
    """A writable node: OmegaConf makes nodes of frozen dataclasses read-only, and these refuse every override."""
    if isinstance(node, DictConfig):
        node._set_flag("readonly", None)
        for child in node._content.values() if isinstance(node._content, dict) else ():
            _writable(child)
    return node
