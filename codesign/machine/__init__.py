"""The machine of a frozen network: choices, placement, the plan, its words and images. No torch, no amaranth."""
