package org.mobilezoo.classify

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import kotlin.math.max

/** The boxes in an upright image. */
fun find(network: Network, image: Bitmap): Found {
    val model = network.model
    val boxes = boxesOf(network.answer(image), model)
    val place = placement(image.width, image.height, model)
    val lines = boxes.take(5).map { "%6.2f %%  %s".format(100 * it.probability, labelOf(it.index, model)) }
    return Found(lines.ifEmpty { listOf("nothing found") }) { canvas ->
        for (box in boxes.reversed()) draw(canvas, box, place, labelOf(box.index, model)) // the most probable on top
    }
}

private fun draw(canvas: Canvas, box: Box, place: Place, label: String) {
    val wide = max(1f, max(canvas.width, canvas.height) / 250f)
    val line = Paint().apply {
        style = Paint.Style.STROKE
        strokeWidth = wide
        color = colorOf(box.index)
    }
    val ground = Paint().apply { color = colorOf(box.index) }
    val letters = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = Color.BLACK
        textSize = max(10f, 6 * wide)
    }
    val left = (place.left + box.left * place.width).toFloat()
    val top = (place.top + box.top * place.height).toFloat()
    val right = (place.left + box.right * place.width).toFloat()
    val bottom = (place.top + box.bottom * place.height).toFloat()
    canvas.drawRect(left, top, right, bottom, line)
    val text = "%s %.0f %%".format(label, 100 * box.probability)
    val tall = 1.3f * letters.textSize
    val (x, y) = max(0f, left) to max(0f, top - tall)
    canvas.drawRect(x, y, x + letters.measureText(text) + 2 * wide, y + tall, ground)
    canvas.drawText(text, x + wide, y + letters.textSize, letters)
}
