"""masks, instances, boxes, RLE, COCO and the other label formats. Needs neither torch nor fiftyone."""

if __name__ == "annotate":  # the bare folder on sys.path: somebody else's ``annotate`` may be meant
    raise ImportError("this folder is the room irstkit.annotate: import it as 'irstkit.annotate'")
