"""``python -m irstkit``: the same as the ``irstkit`` command."""

from .cli import main

if __name__ == "__main__":
    main()
