package org.mobilezoo.classify

import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min

/** A box that was found; its sides are shares 0..1 of the sides of the crop that the network sees. */
class Box(
    val index: Int,
    val probability: Float,
    val left: Float,
    val top: Float,
    val right: Float,
    val bottom: Float,
)

/** The class of every pixel of the crop that the network sees, row by row. */
class Mask(val rows: Int, val columns: Int, val classes: IntArray)

/** The share of a class in a mask, 0..1. */
class Area(val index: Int, val share: Double)

/** Where the crop lies in an image, in pixels of the image; it may reach beyond it. */
class Place(val left: Double, val top: Double, val width: Double, val height: Double)

private const val MOST = 100 // boxes of an image

/** The boxes of one image, most probable first, without those that cover a better one. */
fun boxesOf(answer: FloatArray, model: Model): List<Box> {
    val (places, length) = model.outputShape
    require(answer.size == places * length) { "the file answers with another layout" }
    val found = (0 until places).mapNotNull { place ->
        val row = answer.copyOfRange(place * length, (place + 1) * length)
        val best = bestIn(row, 4, length)
        val box = Box(best - 4, row[best], row[0], row[1], row[2], row[3])
        box.takeIf { it.right > it.left && it.bottom > it.top && it.probability >= model.leastScore.toFloat() }
    }
    val kept = mutableListOf<Box>()
    for (box in found.sortedByDescending { it.probability }) {
        if (kept.size == MOST) break
        if (kept.all { it.index != box.index || covered(box, it) <= model.mostOverlap }) kept += box
    }
    return kept
}

/** Intersection over union of two boxes. */
private fun covered(a: Box, b: Box): Double {
    val width = (min(a.right, b.right) - max(a.left, b.left)).toDouble()
    val height = (min(a.bottom, b.bottom) - max(a.top, b.top)).toDouble()
    val both = max(0.0, width) * max(0.0, height)
    val areas = (a.right - a.left) * (a.bottom - a.top) + (b.right - b.left) * (b.bottom - b.top)
    val either = areas - both
    return if (either > 0) both / either else 0.0
}

/** The best class of every pixel, of equal ones the first. */
fun maskOf(answer: FloatArray, model: Model): Mask {
    val (rows, columns, count) = model.outputShape
    require(answer.size == rows * columns * count) { "the file answers with another layout" }
    return Mask(rows, columns, IntArray(rows * columns) { bestIn(answer, it * count, (it + 1) * count) - it * count })
}

/** The classes that are in a mask, largest first. */
fun areasOf(mask: Mask): List<Area> {
    val counts = IntArray(mask.classes.max() + 1)
    for (index in mask.classes) counts[index]++
    return counts.indices.filter { counts[it] > 0 }.sortedByDescending { counts[it] }
        .map { Area(it, counts[it].toDouble() / mask.classes.size) }
}

private fun bestIn(values: FloatArray, from: Int, to: Int): Int {
    var best = from
    for (i in from until to) if (values[i] > values[best]) best = i
    return best
}

/** Where the crop of an image of a size lies. */
fun placement(width: Int, height: Int, model: Model): Place {
    val (toHeight, toWidth) = resizedSize(height, width, model)
    val x = width.toDouble() / toWidth
    val y = height.toDouble() / toHeight
    val left = cropStart(toWidth, model.width)
    return Place(left * x, cropStart(toHeight, model.height) * y, model.width * x, model.height * y)
}

/** A color for each class, far from those of its neighbours, as 0xFFRRGGBB: lightness 55 %, saturation 85 %. */
fun colorOf(index: Int): Int {
    val hue = index * 0.381966
    return (255 shl 24) or (part(hue + 1 / 3.0) shl 16) or (part(hue) shl 8) or part(hue - 1 / 3.0)
}

private fun part(turns: Double): Int {
    val hue = turns - floor(turns)
    val share = if (hue < 1 / 6.0) 6 * hue else if (hue < 0.5) 1.0 else max(0.0, 6 * (2 / 3.0 - hue))
    return Math.rint(255 * (0.1675 + 0.765 * share)).toInt()
}
