"""The verbs of the command line, one module each: words in, one public function called, what came back shown."""
