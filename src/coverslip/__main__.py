"""`python -m coverslip` is the command line."""

from coverslip.cli import main

if __name__ == "__main__":
    main()
