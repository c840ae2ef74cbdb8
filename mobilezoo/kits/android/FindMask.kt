package org.mobilezoo.classify

import android.graphics.Bitmap
import android.graphics.Paint
import android.graphics.RectF

private const val OPACITY = 160 // of 255

/** The class of every pixel of an upright image; the first class, the background, stays clear. */
fun find(network: Network, image: Bitmap): Found {
    val model = network.model
    val mask = maskOf(network.answer(image), model)
    val lines = areasOf(mask).take(5).map { "%6.2f %%  %s".format(100 * it.share, labelOf(it.index, model)) }
    val place = placement(image.width, image.height, model)
    val colors = IntArray(mask.classes.size) {
        val index = mask.classes[it]
        if (index == 0) 0 else (colorOf(index) and 0xFFFFFF) or (OPACITY shl 24)
    }
    return Found(lines) { canvas ->
        val layer = Bitmap.createBitmap(colors, mask.columns, mask.rows, Bitmap.Config.ARGB_8888)
        val right = place.left + place.width
        val bottom = place.top + place.height
        val all = RectF(place.left.toFloat(), place.top.toFloat(), right.toFloat(), bottom.toFloat())
        canvas.drawBitmap(layer, null, all, Paint().apply { isFilterBitmap = false })
    }
}
