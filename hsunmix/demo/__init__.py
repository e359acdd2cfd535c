"""The page in the browser: drop a scene, see which materials its pixels hold. Needs gradio (`hsunmix[demo]`).

`app` serves the page, `page` is what is on it, `session` what belongs to one visitor, `uploads` which files are let
in, `unmixing` the work, `pixel` what a click shows, `views` the HTML of everything else.
"""
