"""P_size preset files (YAML): per scene count, kind, size, place and SCR of targets."""
