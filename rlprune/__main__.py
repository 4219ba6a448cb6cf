"""`python -m rlprune`."""

from rlprune.cli import main

if __name__ == "__main__":
    main()
