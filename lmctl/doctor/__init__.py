"""What this machine is, what it can do, and whether lmctl computes here what it promises: `lmctl doctor`."""
