"""Requests in many words: to draw something, to find a picture of it, and questions about it that want words.

What is said in training and what is kept back for measuring are apart, whole wordings at a time. Requests that could mean either
(`Show me {}.`, `I want a picture of {}.`) are in neither list.
"""

from __future__ import annotations

OPENINGS = (("{} {{}}.", str.capitalize), ("Please {} {{}}.", str), ("Now {} {{}}.", str), ("Can you {} {{}}?", str), ("Would you {} {{}}?", str),
            ("I want you to {} {{}}.", str), ("Try to {} {{}}.", str), ("It is time to {} {{}}.", str))  # fmt: skip


def opened(verbs: tuple[str, ...]) -> tuple[str, ...]:
    """Each of them behind each opening."""
    return tuple(opening.format(change(verb)) for verb in verbs for opening, change in OPENINGS)


DRAW = (
    *opened(("draw", "paint", "make a drawing of", "create an image of", "illustrate", "paint a picture of", "design", "make a new picture of")),
    "Create a picture that shows {}.", "I need {} drawn.", "There should be {} in your picture.", "My wish is a painting with {}.",
)  # fmt: skip
FIND = (
    *opened(("find", "find a picture of", "find me a photo of", "look for a picture of", "search my pictures for", "show me a photo of", "look up an image of",
             "get me the picture of")),
    "Show me a picture of {}.", "I am looking for a picture of {}.", "Do I have a picture of {}?", "Which of my pictures shows {}?",
    "Is there a photo of {} among my pictures?", "Where is my picture of {}?", "I once took a photo of {}; show it to me.", "There must be a picture of {} somewhere.",
)  # fmt: skip
# What is asked, and an answer; {a} is the thing with its article, {n} without, {k} its kind.
WRITE = (
    ("What is {a}?", "It is a kind of {k}."), ("What kind of thing is {a}?", "A {k}."), ("Tell me about {a}.", "You asked about {a}, which is a {k}."),
    ("How do I draw {a}?", "Begin with the outline of the {n}, then fill it."), ("How do you paint {a}?", "Mix the colours first, then paint the {n}."),
    ("Where can I find {a}?", "It depends on the place where you live."), ("Where do people look for {a}?", "In many places."),
    ("Write a poem about {a}.", "I saw {a} today, and then it went away."), ("Write a sentence about {a}.", "There is {a}."),
    ("Write a short story with {a}.", "Once there was {a}. It was very happy."), ("Write down these words: {a}.", "{a}"), ("Say again: {a}.", "{a}"),
    ("Is {a} round? Answer yes or no.", "No."), ("Is {a} something to eat?", "That depends."), ("Is {a} a {k}?", "Yes."),
    ("What can you do with {a}?", "You can look at it."), ("What color is {a}?", "It can have many colors."), ("How large is {a}?", "Large enough to be seen."),
    ("Why would somebody draw {a}?", "Because it is beautiful."), ("Why do people take photos of {a}?", "Because they like it."),
    ("Have you ever seen {a}?", "No, I am a computer program."), ("Do you like {a}?", "Yes, I do."), ("How do you spell {n}?", "{n}"),
    ("What does the word {n} mean?", "It is the name of a {k}."), ("Translate {n} into French.", "I am not sure how it is said."),
    ("Describe {a} in a few words.", "It is a {k}."), ("Explain what {a} looks like.", "It looks like a {k}."), ("Who paints pictures of {a}?", "Painters do."),
    ("Which word is a thing in the request to find {a}?", "{n}"), ("Which word is a thing in the request to draw {a}?", "{n}"),
    ("Is it hard to draw {a}?", "Not if you practise."), ("How do I search for {a} on the internet?", "Type {n} into a search engine."),
    ("I saw {a} today.", "That is nice."), ("I have lost {a}. What shall I do?", "Ask at the lost property office."), ("What rhymes with {n}?", "Many words do."),
    ("Hello!", "Hello! What can I do for you?"), ("Thank you.", "You are welcome."), ("Who are you?", "I am a language model."), ("What is the capital of France?", "Paris."),
    ("How much is two and three?", "Five."), ("What can you do?", "I answer questions."), ("Can you draw?", "Yes, tell me what."), ("What is a picture?", "Something to look at."),
    ("How are photos made?", "With a camera."), ("Write a short letter to a friend.", "Dear friend, I hope that you are well."),
)  # fmt: skip

NEW_DRAW = (
    "Could you draw {} for me?", "I would like a drawing of {}.", "Sketch {}.", "Draw me {}, please.", "Let me see you paint {}.", "Could you sketch {} on paper?",
    "Make some art that shows {}.", "Invent a picture with {}.", "Produce an illustration of {}.", "Put {} on an empty canvas.", "Will you doodle {}?",
    "Imagine {} and draw what you imagine.",
)  # fmt: skip
NEW_FIND = (
    "Fetch the photo of {}.", "Could you dig out my picture of {}?", "Retrieve an image of {}.", "Pull up a photo of {}.", "Browse my album for {}.",
    "Locate a picture of {}.", "Help me find a picture of {}.", "Go through my photos and find {}.", "Are there any pictures of {} in my collection?",
    "Which photo has {} in it?", "I need the picture of {} that I saved.", "Open the image that shows {}.",
)  # fmt: skip
NEW_WRITE = (
    ("What do you know about {a}?", "Not much."), ("How would you describe {a} to a child?", "As a kind of {k}."), ("Write a joke about {a}.", "It has none."),
    ("Who invented {a}?", "Nobody knows."), ("What is the best way to draw {a}?", "Slowly."), ("When did you last see {a}?", "I do not see."),
    ("Name three things that are like {a}.", "I know of none."), ("Is {a} expensive?", "That depends."), ("How can I find {a} in the dark?", "With a lamp."),
    ("Make a list of words for {a}.", "{n}"), ("Could {a} fit into a box?", "Into a large one."), ("What should I know before I paint {a}?", "Its colours."),
    ("Good morning!", "Good morning!"), ("What is the capital of Italy?", "Rome."), ("Can you find pictures?", "Yes, tell me of what."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci."), ("What day comes after Monday?", "Tuesday."), ("Explain what a camera does.", "It makes photos."),
)  # fmt: skip
"""Said in no training. Of those to draw the first four are what the benchmark `drawing` says, too."""
