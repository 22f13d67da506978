"""Requests in many words: to draw something, to find a picture of it, and questions about it that want words.

What is said in training and what is kept back for measuring are apart, whole wordings at a time. Of the words of those kept back training has the
commonest (draw, find, picture), and none of `KEPT_BACK`, of which all but three hold one.
Requests that could mean either (`Show me {}.`, `I want a picture of {}.`) are in neither list.
"""

from __future__ import annotations

from collections.abc import Callable

Opening = tuple[str, Callable[[str], str]]
OPENINGS: tuple[Opening, ...] = (
    ("{} {{}}.", str.capitalize), ("Please {} {{}}.", str), ("Now {} {{}}.", str), ("Can you {} {{}}?", str), ("Would you {} {{}}?", str),
    ("I want you to {} {{}}.", str), ("Try to {} {{}}.", str), ("It is time to {} {{}}.", str),
)  # fmt: skip
MORE_OPENINGS: tuple[Opening, ...] = (
    ("{} {{}}.", str.capitalize), ("{} {{}}", str), ("{} {{}}, please.", str.capitalize), ("Hey, {} {{}}!", str), ("Your task is to {} {{}}.", str),
    ("{} {{}} now.", str.capitalize), ("Are you able to {} {{}}?", str), ("Be so kind as to {} {{}}.", str), ("I ask you to {} {{}}.", str),
    ("Would you mind if I asked you to {} {{}}?", str), ("please {} {{}}", str), ("Next, {} {{}}.", str),
)  # fmt: skip


def opened(verbs: tuple[str, ...], openings: tuple[Opening, ...] = OPENINGS, each: int | None = None) -> tuple[str, ...]:
    """Each verb behind each opening, or behind so many of them, in turn."""
    count = len(openings) if each is None else each
    chosen = [(verb, openings[(place * count + i) % len(openings)]) for place, verb in enumerate(verbs) for i in range(count)]
    return tuple(opening.format(change(verb)) for verb, (opening, change) in chosen)


_DRAW = ("draw", "paint", "make a drawing of", "create an image of", "illustrate", "paint a picture of", "design", "make a new picture of")
_MORE_DRAW = (
    "draw a picture of", "draw", "generate a picture of", "paint me", "depict", "make an image of", "render", "create", "make a painting of", "paint",
    "create a drawing of", "make a cartoon of", "compose a picture with", "craft an image of", "generate an image of", "visualise", "pencil", "scribble",
    "make me a picture of", "make a little drawing of", "draw a simple picture of", "think up a picture of", "design a poster with", "draw an icon of",
    "paint a portrait of", "make a graphic of", "draw with crayons", "paint in watercolor", "create a picture with", "generate", "draw a cartoon of", "colour",
)  # fmt: skip
DRAW = (
    *opened(_DRAW), *opened(_MORE_DRAW, MORE_OPENINGS, 3),
    "Create a picture that shows {}.", "I need {} drawn.", "There should be {} in your picture.", "My wish is a painting with {}.",
    "I want you to paint a picture with {} in it.", "A new drawing of {}, please.", "A painting of {} would be nice.", "Make {} appear in a new picture.",
    "Use your brush for {}.", "Take your pencil and draw {}.", "Take a brush and paint {}.", "Show me how you draw {}.", "Show me your drawing of {}.",
    "Can I have a drawing of {}?", "Can I have a picture of {} that you make yourself?", "Fill a page with {}.", "Be a painter and paint {}.",
    "Pretend to be an artist and draw {}.", "Think of {} and paint it.", "Think of {}, then make a picture of it.", "What I want is a drawing: {}.",
    "Paint this: {}", "Draw the following: {}.", "Draw this for me: {}", "My son wants a drawing of {}.", "For my birthday I want a painting of {}.",
    "Have {} drawn.", "Give me a drawing with {}.", "Give me a brand new picture of {}.", "I need a new image of {}.", "How about a drawing of {}?",
    "How about painting {}?", "Time for a painting: {}.", "Now a drawing of {}.", "Next, a picture of {} by you.", "Draw {} as well as you can.",
    "Draw {} in bright colors.", "Draw {} on a white ground.", "Paint {} on a wall.", "Make a picture from nothing, with {} on it.", "I want to hang a painting of {} on my wall.",
    "I am waiting for your drawing of {}.", "Your next picture shows {}.", "Turn these words into a picture: {}.", "a drawing of {}", "Design something with {} on it.",
)  # fmt: skip
_FIND = ("find", "find a picture of", "find me a photo of", "look for a picture of", "search my pictures for", "show me a photo of", "look up an image of",
         "get me the picture of")  # fmt: skip
_MORE_FIND = (
    "search for a photo of", "find", "look for the image of", "hunt for a picture of", "track down a photo of", "find the image of", "search for", "seek a picture of",
    "find an image with", "find the photo that shows", "find my picture of", "find one of my pictures with", "choose a photo of", "pick a picture of",
    "select the image with", "bring me the photo of", "bring up a picture of", "call up the image of", "give me the photo of", "give me back my picture of",
    "return an image of", "show me my photo of", "show me the stored image of", "display the photo of", "load the picture of", "view my photos of",
    "check my photos for", "scan my pictures for", "look in my gallery for", "look in my files for a picture of", "search the archive for", "search the folder for",
    "search my library for", "get the photo of", "get an image of", "recover the picture of", "discover a photo of", "identify the picture with",
    "hand me the photo of", "grab the picture of", "point me to a picture of", "lead me to the photo of", "show the old picture of", "look up",
)  # fmt: skip
FIND = (
    *opened(_FIND), *opened(_MORE_FIND, MORE_OPENINGS, 3),
    "Show me a picture of {}.", "I am looking for a picture of {}.", "Do I have a picture of {}?", "Which of my pictures shows {}?",
    "Is there a photo of {} among my pictures?", "Where is my picture of {}?", "I once took a photo of {}; show it to me.", "There must be a picture of {} somewhere.",
    "I cannot find my photo of {}.", "I am searching for the image with {}.", "I am trying to find a picture of {}.", "Have I got a photo of {}?",
    "Do I own an image of {}?", "Is {} in one of my photos?", "Is there an image with {} in my gallery?", "Are there pictures of {} on my phone?",
    "In which of my pictures is {}?", "Which image shows {}?", "Which picture is the one with {}?", "Which of these photos contains {}?",
    "Where are the pictures of {}?", "Where is that old photo of {}?", "Somewhere in my files there is a picture of {}; where?", "I remember a photo of {}. Show it.",
    "I want my old photo of {} back.", "I need the photo of {} again.", "I want to look at the photo of {} that I took.", "The picture of {} from my trip, please.",
    "Photos of {}, please.", "Find: {}", "Search: {}", "image search: {}", "My photo of {}, please.", "One of my photos shows {}; which?",
    "Show the picture in which {} can be found.", "A photo of {} from my archive, please.", "I have a picture of {} in this folder; show it.",
    "There is a photo of {} on this disk; find it.", "You have a picture of {}; show me that.", "Look whether there is a photo of {}.",
    "We took a photo of {} once; look it up.", "I wonder whether I have a photo of {}.", "Give me one of the stored pictures, the one with {}.",
    "From all my pictures, choose the one of {}.", "Among all these images, which one shows {}?", "Pick from my photos one with {}.",
    "Search everywhere for a picture of {}.", "Do you have a photo of {}?", "Is there a picture of {}?", "I want the existing picture of {}.",
    "photos of {}", "Where can I look at my photos of {}?", "Show me all the photos with {}.", "Show me where {} can be seen in my pictures.",
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
    ("What is {a} made of?", "Of many parts."), ("What is {a} used for?", "For many purposes."), ("Who uses {a}?", "People do."), ("How much does {a} cost?", "It depends."),
    ("How heavy is {a}?", "It depends on the size."), ("How old is {a}?", "I cannot tell."), ("Can {a} swim?", "No."), ("Can you eat {a}?", "I do not think so."),
    ("Can one find {a} in a forest?", "Perhaps."), ("Is {a} dangerous?", "No."), ("Is {a} bigger than a house?", "No."), ("Is it easy to paint {a}?", "With practice."),
    ("Are pictures of {a} popular?", "Yes, with many people."), ("Why is {a} famous?", "I am not sure that it is."), ("Why do artists paint {a}?", "Because they like to look at it."),
    ("Why can nobody find {a}?", "It is hidden."), ("Which colors do I need to paint {a}?", "That depends on the light."), ("Which pencil is right for drawing {a}?", "A soft one."),
    ("Should I draw {a} or paint it?", "Draw it first."), ("Does {a} look nice?", "Yes."), ("Does {a} make a noise?", "Not that I heard of."), ("Do people still search for {a}?", "Some do."),
    ("Describe {a}.", "It is a {k}."), ("Describe how to draw {a}.", "Begin with the outline."), ("Explain {a}.", "It is a {k}."),
    ("Explain to me how to find {a}.", "Ask somebody who lives there."), ("Give me a definition of {a}.", "A kind of {k}."), ("Give me three facts about {a}.", "It is a {k}. I have no others."),
    ("Give me advice on how to paint {a}.", "Begin with light colors."), ("Tell me a story about {a}.", "Once there was {a}."), ("Tell me how people draw {a}.", "With a pencil."),
    ("Tell me what {a} looks like.", "It looks like a {k}."), ("Tell me where people find {a}.", "In many places."), ("Tell me something funny about {a}.", "Nothing comes to my mind."),
    ("Say something about {a}.", "It is a {k}."), ("Write an essay on {a}.", "Many people like {a}."), ("Write instructions for drawing {a}.", "First draw the outline."),
    ("Write a caption for a picture of {a}.", "Here is {a}."), ("Write a title for a photo of {a}.", "The {n}"), ("Write a question about {a}.", "What is {a}?"),
    ("Compare {a} with a stone.", "A stone is harder."), ("Count the letters of {n}.", "I cannot count."), ("Spell {n}.", "{n}"), ("Define {n}.", "A kind of {k}."),
    ("Use the word {n} in a sentence.", "Here is {a}."), ("Repeat: {a}", "{a}"), ("My sister drew {a}.", "That is nice of her."), ("I like to draw {a}.", "That is a nice hobby."),
    ("I found {a} yesterday.", "Lucky you."), ("I took a photo of {a} yesterday.", "I hope that it is sharp."), ("I am afraid of {a}.", "You need not be."),
    ("In which country do people make {a}?", "In many countries."), ("What language is the word {n} from?", "I am not sure."), ("Is a picture of {a} worth a thousand words?", "Perhaps."),
    ("what is {a}", "It is a kind of {k}."), ("tell me about {a}", "It is a {k}."), ("What do you think of {a}?", "I have no opinion."), ("Who likes {a}?", "Many people do."),
    ("What would you call a photo of {a}?", "A photo."), ("Which of {a} and the moon is larger?", "The moon."), ("Why would you draw {a}?", "Because you asked."),
    ("Hi!", "Hello!"), ("How are you?", "Fine, thank you."), ("Hello there!", "Hello!"), ("Thanks a lot!", "You are welcome."), ("Bye.", "Goodbye."),
    ("What time is it?", "I do not have a clock."), ("What is the capital of Spain?", "Madrid."), ("How many legs are on a spider?", "Eight."), ("What is the largest ocean?", "The Pacific."),
    ("How much is seven times eight?", "56."), ("Who wrote Hamlet?", "William Shakespeare."), ("What color is the sky?", "Blue."), ("Are you able to draw?", "Yes, tell me what."),
    ("What kind of pictures do you make?", "Small ones."), ("Do you like to paint?", "Yes."), ("Is it possible to search pictures with you?", "Yes, tell me what for."),
    ("Which pictures do you have?", "Those of your index."), ("Explain how a computer works.", "It follows instructions."), ("What is a drawing?", "A picture made of lines."),
    ("What does an artist do?", "An artist makes pictures."), ("Who was Picasso?", "A painter from Spain."), ("Tell me about yourself.", "I am a language model."),
    ("Write a haiku.", "An old silent pond."), ("Write an email to my boss.", "Dear boss, I am ill today."), ("Give me a recipe for soup.", "Boil vegetables in water."),
    ("Translate thank you into German.", "Danke."), ("Why is grass green?", "Because of chlorophyll."), ("Is the earth round?", "Yes."), ("Can birds fly?", "Most of them can."),
    ("What is the opposite of large?", "Small."), ("How does one become a painter?", "By painting a lot."), ("Can you search?", "Yes, in your pictures."), ("How do you draw?", "Code by code."),
    ("What is a search engine?", "A program that finds pages."), ("Is photography a profession?", "Yes."), ("What should I draw today?", "Perhaps a star."),
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

KEPT_BACK = (
    "album", "any", "art", "browse", "canvas", "collection", "could", "dig", "doodle", "empty", "fetch", "go", "has", "help", "illustration", "imagine",
    "invent", "let", "locate", "open", "out", "paper", "produce", "pull", "put", "retrieve", "saved", "see", "sketch", "some", "through", "will", "after",
    "before", "best", "box", "camera", "child", "comes", "dark", "day", "did", "expensive", "fit", "good", "invented", "italy", "joke", "know", "last",
    "lisa", "list", "mona", "monday", "morning", "name", "painted", "things", "way", "when",
)  # fmt: skip
"""Words of these wordings that no wording of training has."""
