"""What the service manager is told: ready, alive only while the loops make progress, ending."""
