"""What the App shows: colours, editable attributes, saved views for this field."""

from __future__ import annotations

import warnings
from typing import Any

from ..service import load
from . import fields, store
from .predictions import match_attribute

COLOURS = ("#ff7800", "#c060ff", "#40a0ff", "#ff4060", "#a0a000")
LABELS = "#00e5ff"


def configure(dataset: Any, attributes: list[str]) -> None:
    """Colours, active fields, playback, label schemas and indexes."""
    fo = load()
    names = prediction_fields(dataset)
    config = dataset.app_config
    config.media_fields = ["filepath", "preview"]
    config.grid_media_field = config.modal_media_field = "preview"
    config.dynamic_groups_target_frame_rate = 30
    active = fo.DatasetAppConfig.default_active_fields(dataset)
    active.paths = [store.FIELD, *names]
    config.active_fields = active
    config.color_scheme = fo.ColorScheme(
        color_by="field",
        opacity=0.35,
        fields=[
            {"path": store.FIELD, "fieldColor": LABELS},
            *({"path": n, "fieldColor": COLOURS[k % len(COLOURS)]} for k, n in enumerate(names)),
        ],
    )
    schemas = dataset.generate_label_schemas([store.FIELD, "scene", "tags"])
    for attribute in schemas[store.FIELD]["attributes"]:
        name = attribute["name"]
        if name not in fields.EDITABLE and name != fields.TRACK:
            # numbers would become sliders that show their maximum where there is no value
            attribute["read_only"] = True
        if fields.EDITABLE.get(name):
            attribute.update(type="str", component="dropdown", values=fields.EDITABLE[name])
    dataset.set_label_schemas(schemas)
    dataset.active_label_schemas = list(schemas)
    dataset.save()
    dataset.create_index([("set_name", 1), ("record_id", 1)])
    if _has(dataset, "sequence_id"):
        dataset.create_index([("sequence_id", 1), ("frame_number", 1)])


def prediction_fields(dataset: Any) -> list[str]:
    """The fields of predictions, in the order in which they were pushed."""
    return list(dataset.info[store.INFO].get("predictions", {}))


def _has(dataset: Any, name: str) -> bool:
    return store.samples(dataset).find_one({name: {"$nin": [None, False]}}, {"_id": 1}) is not None


def saved_views(dataset: Any) -> list[str]:
    """Save the views that make sense for what is in the data set; their names, in the order of the menu.

    Views of patches are worked out by FiftyOne when they are opened.
    """
    load()
    from fiftyone import ViewField as F

    truth = store.FIELD
    patches = dataset.to_patches(truth)
    views: dict[str, tuple[Any, str]] = {}
    if _has(dataset, "sequence_id"):
        played = dataset.exists("sequence_id").group_by("sequence_id", order_by="frame_number")
        views["sequences"] = (played, "Sequences that play; 'Edit frames' goes to the single frames")
        ordered = dataset.exists("sequence_id").sort_by([("sequence_id", 1), ("frame_number", 1)])
        views["frames"] = (ordered, "The frames of the sequences one by one, in order, for editing")
    names = prediction_fields(dataset)
    for name in names:
        more = "" if len(names) == 1 else f" ({name})"
        found = F("match") == "false_alarm"
        alarms = (
            dataset.filter_labels(name, found).to_patches(name).sort_by(f"{name}.confidence", reverse=True)
        )
        views[f"missing labels?{more}"] = (alarms, "False alarms of the model, the surest first")
        missed = dataset.filter_labels(truth, F(match_attribute(name)) == "miss")
        views[f"misses{more}"] = (missed.to_patches(truth).sort_by(f"{truth}.scr"), "Labels the model missed")
    if names:
        worst = dataset.match(F("suspicion") > 0).sort_by("suspicion", reverse=True)
        views["worst labels first"] = (worst, "Images by their most suspicious label or false alarm")
        doubtful = dataset.filter_labels(truth, F("suspicion") > 0).to_patches(truth)
        views["suspicious labels"] = (
            doubtful.sort_by(f"{truth}.suspicion", reverse=True),
            "Labels one by one, the most suspicious first",
        )
        differ = dataset.match(F("disagreement") > 0).sort_by("disagreement", reverse=True)
        views["disagreement"] = (differ, "Images where labels and models differ most")
    views["lowest SCR"] = (patches.sort_by(f"{truth}.scr"), "Every target, the faintest first")
    views["smallest"] = (patches.sort_by(f"{truth}.area"), "Every target, the smallest first")
    if _has(dataset, "at_border"):
        border = dataset.filter_labels(truth, F("at_border") == True)  # noqa: E712
        views["at the border"] = (border.to_patches(truth), "Targets that touch the image's border")
    if _has(dataset, "twins_across_splits"):
        twins = dataset.match(F("twins_across_splits") == True).sort_by("twin_group")  # noqa: E712
        views["twins across splits"] = (twins, "Near-identical images in two parts of one split")
    if len(dataset.distinct("source")) > 1:
        beside = dataset.match(F("targets") > 0).sort_by("scr_min")
        views["synthetic beside real"] = (
            beside,
            "By SCR: real and synthetic of equal difficulty side by side",
        )
    views["targets"] = (patches, "A patch a target")
    views["not reviewed"] = (dataset.match(F("reviewed") != True), "Images not yet marked as reviewed")  # noqa: E712
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for old in dataset.list_saved_views():
            if old not in views and old in dataset.info[store.INFO].get("views", []):
                dataset.delete_saved_view(old)
        for name, (view, about) in views.items():
            dataset.save_view(name, view, description=about, overwrite=True)
    dataset.info[store.INFO] = {**dataset.info[store.INFO], "views": list(views)}
    dataset.save()
    return list(views)
