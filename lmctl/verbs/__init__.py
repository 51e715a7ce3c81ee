"""What each verb of the command line does, given its config."""
