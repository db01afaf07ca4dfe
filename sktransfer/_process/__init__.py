"""Things that exist once per process: locks, threads, torch's generator, versions of libraries."""
