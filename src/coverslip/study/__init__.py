"""Many runs on one split."""
