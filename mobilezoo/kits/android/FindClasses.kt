package org.mobilezoo.classify

import android.graphics.Bitmap

/** The five best classes of an upright image. */
fun find(network: Network, image: Bitmap): Found {
    val best = bestOf(network.answer(image), network.model)
    return Found(best.map { "%6.2f %%  %s".format(100 * it.probability, it.label) })
}
