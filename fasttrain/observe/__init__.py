"""What a run tells: the journal on disk, and the sinks that only read it."""
