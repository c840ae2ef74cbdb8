package org.mobilezoo.classify

import android.graphics.Canvas

/** What was found in an image: lines of text, and what draws it over the image. */
class Found(val lines: List<String>, val draw: ((Canvas) -> Unit)? = null)
