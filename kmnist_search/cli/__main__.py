"""`python -m kmnist_search.cli`: the command line, as jobs on a cluster start it."""

from kmnist_search.cli.main import main

if __name__ == "__main__":
    main()
