"""Sentences of every day to judge by, said by nobody in training: greetings, questions, numbers, dates, news, READMEs.

Written as people write: numbers in figures where they usually are.
"""

from __future__ import annotations

from tools.demo_voice.data.texts import EXAMPLES

EVERYDAY = (
    *EXAMPLES,
    "Good evening, ladies and gentlemen.",
    "I would like a cup of coffee, please.",
    "Where is the next bus stop?",
    "How much does this shirt cost?",
    "See you next week, have a good time!",
    "I'm sorry, I didn't understand the question.",
    "Can you say that again, a little more slowly?",
    "We are going to the cinema tonight.",
    "There are 12 months in a year.",
    "The meeting begins at 9 o'clock on Monday.",
    "My phone number is 4, 7, 2, 9.",
    "Today is Friday, November 27th.",
    "She was born in 1984 in a small town.",
    "The ticket costs 35 dollars.",
    "Turn right at the traffic light and then go straight on.",
    "The government announced a new plan on Tuesday.",
    "Heavy snow closed the airport for two hours.",
    "The team won the game in the last minute.",
    "Scientists have found water on the moon.",
    "Prices rose by 3 percent last year.",
    "My brother works in a hospital.",
    "The children are playing in the garden.",
    "I have never been to Paris.",
    "It's raining again, don't forget your umbrella.",
    "Could you open the window, please?",
    "The bank is closed on Sunday.",
    "He reads the newspaper every morning.",
    "What would you like to drink?",
    "I can't find my keys.",
    "That's a very good idea.",
    "The book is on the table.",
    "We had fish and rice for dinner.",
    "Your order will be delivered tomorrow.",
    "Please leave a message after the tone.",
    "The next station is Central Park.",
    "Welcome to our customer service.",
    "One moment please, I will connect you.",
    "The sky is blue and the grass is green.",
    "How long does it take to get there?",
    "Happy birthday, and all the best for the new year!",
)
