"""The machine that the program runs on: versions, cores, memory, processes, signals, folders."""
