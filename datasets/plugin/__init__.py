"""The operators of irstkit in FiftyOne's App. What they do is in ``irstkit.datasets.curation.edits``.

They work on the selected labels; with none selected, on those of the open image, else of the selected images, else
of the whole view.
"""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from bson import ObjectId
from fiftyone.operators import types

from irstkit.annotate.errors import IrstkitError
from irstkit.datasets.curation import edits, log, store
from irstkit.datasets.curation.views import prediction_fields


def label_ids(ctx: Any, *, whole_view: bool = True) -> list[str]:
    """The ids of the labels that are meant.

    Raises
    ------
    IrstkitError
        When there are none.
    """
    chosen = [item["label_id"] for item in ctx.selected_labels or [] if item.get("field") == store.FIELD]
    if chosen:
        return chosen
    found: list[str] = []
    for sample in sample_ids(ctx, whole_view=whole_view):
        row = store.samples(ctx.dataset).find_one(
            {"_id": ObjectId(sample)}, {f"{store.FIELD}.detections._id": 1}
        )
        found += [str(d["_id"]) for d in ((row or {}).get(store.FIELD) or {}).get("detections", [])]
    if not found:
        raise IrstkitError("no label is selected, and none is here")
    return found


def sample_ids(ctx: Any, *, whole_view: bool = True) -> list[str]:
    """The ids of the images that are meant: the open one, the selected ones, or all of the view."""
    if ctx.current_sample:
        return [source_id(ctx, ctx.current_sample)]
    if ctx.selected:
        return list(dict.fromkeys(source_id(ctx, i) for i in ctx.selected))
    if not whole_view:
        return []
    ids = ctx.view.values("sample_id" if ctx.view._is_patches else "id")
    return list(dict.fromkeys(ids))


def source_id(ctx: Any, shown: str) -> str:
    """The id of the image behind a tile, which is a patch in a view of patches."""
    if store.samples(ctx.dataset).find_one({"_id": ObjectId(shown)}, {"_id": 1}) is not None:
        return shown
    return str(ctx.view[shown].sample_id)


class Operator(foo.Operator):
    """What all of them share: a name, a button, a message of what was done, errors in one line."""

    NAME = ""
    LABEL = ""
    ABOUT = ""
    ICON = "edit"
    BUTTON = True
    ASKS = False

    @property
    def config(self) -> Any:
        return foo.OperatorConfig(
            name=self.NAME,
            label=f"irstkit: {self.LABEL}",
            description=self.ABOUT,
            icon=self.ICON,
            dynamic=self.ASKS,
        )

    def act(self, ctx: Any) -> log.Edit:
        """Do it."""
        raise AssertionError("every operator has its own")

    def execute(self, ctx: Any) -> dict[str, Any]:
        try:
            edit = self.act(ctx)
        except IrstkitError as error:
            ctx.ops.notify(str(error), variant="error")
            return {"done": 0, "skipped": 0, "error": str(error)}
        ctx.ops.reload_samples()
        text = f"{edit.name}: {edit.done}" + (f", {edit.skipped} not possible" if edit.skipped else "")
        ctx.ops.notify(text, variant="success" if edit.done else "warning")
        return {"done": edit.done, "skipped": edit.skipped}

    def resolve_placement(self, ctx: Any) -> Any:
        if not self.BUTTON:
            return None
        button = types.Button(label=self.LABEL, icon=self.ICON, prompt=self.ASKS)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)


class Snap(Operator):
    NAME, LABEL = "snap", "Snap to pixels"
    ABOUT = "Masks and boxes to whole pixels; what is on them already stays"
    ICON = "grid_on"

    def act(self, ctx: Any) -> log.Edit:
        return edits.snap(ctx.dataset, label_ids(ctx))


class Free(Operator):
    NAME, LABEL = "free", "Move box"
    ABOUT = "Set the mask aside so that its box can be moved and resized; 'Snap to pixels' brings it back"
    ICON = "open_with"

    def act(self, ctx: Any) -> log.Edit:
        return edits.free(ctx.dataset, label_ids(ctx, whole_view=False))


class MaskFromBox(Operator):
    NAME, LABEL = "mask_from_box", "Mask from box"
    ABOUT = "Grow the target inside the box from its brightest (or darkest) pixel above a local threshold"
    ICON = "auto_fix_high"

    def act(self, ctx: Any) -> log.Edit:
        return edits.mask_from_box(ctx.dataset, label_ids(ctx, whole_view=False))


class BoxFromMask(Operator):
    NAME, LABEL = "box_from_mask", "Box from mask"
    ABOUT = "The box becomes the mask's own"
    ICON = "crop_free"

    def act(self, ctx: Any) -> log.Edit:
        return edits.box_from_mask(ctx.dataset, label_ids(ctx, whole_view=False))


class Split(Operator):
    NAME, LABEL = "split", "Split target"
    ABOUT = "Into its unconnected parts, else into two halves across its longest axis"
    ICON = "call_split"

    def act(self, ctx: Any) -> log.Edit:
        return edits.split(ctx.dataset, label_ids(ctx, whole_view=False))


class Merge(Operator):
    NAME, LABEL = "merge", "Merge targets"
    ABOUT = "The labels of an image become one with all their pixels"
    ICON = "call_merge"

    def act(self, ctx: Any) -> log.Edit:
        return edits.merge(ctx.dataset, label_ids(ctx, whole_view=False))


class Accept(Operator):
    NAME, LABEL = "accept", "Accept predictions"
    ABOUT = "Selected predictions, or all false alarms of the open image, become labels"
    ICON = "done_all"

    def act(self, ctx: Any) -> log.Edit:
        names = prediction_fields(ctx.dataset)
        chosen = [i for i in ctx.selected_labels or [] if i.get("field") in names]
        if chosen:
            name = chosen[0]["field"]
            return edits.accept(ctx.dataset, [i["label_id"] for i in chosen if i["field"] == name], name)
        if not names:
            raise IrstkitError(
                "no predictions were pushed", hint="irstkit data curate PATH --predictions FILE"
            )
        for name in names:
            found = []
            for sample in sample_ids(ctx, whole_view=False):
                row = store.samples(ctx.dataset).find_one({"_id": ObjectId(sample)}, {name: 1}) or {}
                labels = (row.get(name) or {}).get("detections", [])
                found += [str(d["_id"]) for d in labels if d.get("match") == "false_alarm"]
            if found:
                return edits.accept(ctx.dataset, found, name)
        raise IrstkitError("no prediction is selected, and no false alarm is here")


class DeleteBelow(Operator):
    NAME, LABEL = "delete_below", "Delete small or faint"
    ABOUT = "Labels with fewer pixels or a lower SCR than stated"
    ICON = "filter_alt_off"
    ASKS = True

    def resolve_input(self, ctx: Any) -> Any:
        inputs = types.Object()
        inputs.float("area", label="Fewer pixels than", description="leave empty: no limit", min=0)
        inputs.float("scr", label="SCR below", description="leave empty: no limit", min=0)
        return types.Property(inputs, view=types.View(label="Delete labels below a size or an SCR"))

    def act(self, ctx: Any) -> log.Edit:
        area, scr = ctx.params.get("area"), ctx.params.get("scr")
        if area is None and scr is None:
            raise IrstkitError("neither a size nor an SCR is given")
        return edits.delete_below(ctx.dataset, label_ids(ctx), area=area, scr=scr)


class Carry(Operator):
    NAME, LABEL = "carry", "Carry along sequence"
    ABOUT = "The selected label to the following frames, by local tracking"
    ICON = "double_arrow"
    ASKS = True

    def resolve_input(self, ctx: Any) -> Any:
        inputs = types.Object()
        inputs.int("frames", label="At most this many frames", default=10, min=1, max=10000)
        return types.Property(inputs, view=types.View(label="Carry a label along its sequence"))

    def act(self, ctx: Any) -> log.Edit:
        found = label_ids(ctx, whole_view=False)
        if len(found) != 1:
            raise IrstkitError(f"one label can be carried, {len(found)} are selected")
        return edits.carry(ctx.dataset, found[0], frames=int(ctx.params.get("frames", 10)))


class MarkReviewed(Operator):
    NAME, LABEL = "mark_reviewed", "Mark reviewed"
    ABOUT = "The open image or the selected ones; they leave the view 'not reviewed'"
    ICON = "check_circle"

    def act(self, ctx: Any) -> log.Edit:
        found = sample_ids(ctx, whole_view=False)
        if not found:
            raise IrstkitError("no image is open or selected")
        return edits.review(ctx.dataset, found)


class EditFrames(Operator):
    NAME, LABEL = "edit_frames", "Edit frames"
    ABOUT = "From a sequence that plays to its single frames, where labels can be edited"
    ICON = "view_carousel"

    def execute(self, ctx: Any) -> dict[str, Any]:
        found = sample_ids(ctx, whole_view=False)
        row = store.samples(ctx.dataset).find_one({"_id": ObjectId(found[0])}) if found else None
        if row is None or row.get("sequence_id") is None:
            ctx.ops.notify("open or select a frame of a sequence", variant="warning")
            return {"frames": 0}
        match = {"set_name": row["set_name"], "sequence_id": row["sequence_id"]}
        view = ctx.dataset.match(match).sort_by("frame_number")
        ctx.ops.set_view(view)
        ctx.ops.open_sample(id=found[0])
        return {"frames": view.count()}


class Undo(Operator):
    NAME, LABEL = "undo", "Take back"
    ABOUT = "The last edit of these buttons"
    ICON = "undo"

    def execute(self, ctx: Any) -> dict[str, Any]:
        try:
            name = log.undo(ctx.dataset)
        except IrstkitError as error:
            ctx.ops.notify(str(error), variant="error")
            return {"undone": None, "error": str(error)}
        ctx.ops.reload_samples()
        ctx.ops.notify(f"taken back: {name}", variant="success")
        return {"undone": name}


OPERATORS = (
    Free,
    Snap,
    Accept,
    MaskFromBox,
    BoxFromMask,
    Split,
    Merge,
    DeleteBelow,
    Carry,
    MarkReviewed,
    EditFrames,
    Undo,
)


def register(plugin: Any) -> None:
    """FiftyOne's entry point."""
    for operator in OPERATORS:
        plugin.register(operator)
