"""Curation in FiftyOne: push data sets, look, fix labels, pull the fixes back into COCO."""
