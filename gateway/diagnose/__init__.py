"""What a technician asks when something is wrong: probes, verdicts, remedies. Works with the daemon dead."""
