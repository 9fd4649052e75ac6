"""What a planned machine costs: memories, logic, clocks, and the budgets held against them."""
