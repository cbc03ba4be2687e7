"""The zoo: small trained checkpoints that ship with the package, and how they were trained."""
