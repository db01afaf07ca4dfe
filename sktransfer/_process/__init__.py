"""What there is once per process: locks, threads, torch's generator, versions of libraries."""
