"""How many different showers a generator knows: the birthday-paradox test and the rate of colliding pairs."""
