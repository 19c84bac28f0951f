"""backgrounds, targets, placement, contrast, sensor: synthetic images whose every target is documented."""

if __name__ == "synth":  # the bare folder on sys.path: somebody else's ``synth`` may be meant
    raise ImportError("this folder is the room irstkit.synth: import it as 'irstkit.synth'")
