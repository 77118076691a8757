"""`python -m recorder` is the command `recorder`, also where no folder of scripts is on PATH."""

from recorder.cli.app import main

if __name__ == "__main__":
    main()
